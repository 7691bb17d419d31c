// Probe is a guest that does what tests ask of it: as a CGI program by the path of
// the request, as a job by its first argument. It uses little of the standard
// library, to be small.
package main

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	mode, n := "", 0
	if os.Getenv("GATEWAY_INTERFACE") != "" {
		mode, n = parse(os.Getenv("PATH_INFO")[1:])
	} else if len(os.Args) > 1 {
		mode, n = parse(os.Args[1])
	}
	act, ok := acts[mode]
	if !ok {
		act = func(int) { say("Content-Type: text/plain\r\n\r\nhello") }
	}
	act(n)
}

// parse splits "mode:n".
func parse(s string) (string, int) {
	mode, arg, _ := strings.Cut(s, ":")
	n, _ := strconv.Atoi(arg)
	return mode, n
}

func say(s string) { os.Stdout.WriteString(s) }

var acts = map[string]func(int){
	"raw": func(int) { // answers with what came in
		io.Copy(os.Stdout, os.Stdin)
	},
	"spin": func(int) {
		for {
		}
	},
	"late": func(int) { // fails once the answer has begun
		say("Content-Type: text/plain\r\n\r\nbegun")
		time.Sleep(20 * time.Millisecond)
		for {
		}
	},
	"sleep": func(n int) {
		time.Sleep(time.Duration(n) * time.Millisecond)
		say("Content-Type: text/plain\r\n\r\nslept")
	},
	"nothing": func(int) {},
	"exit":    func(n int) { os.Exit(n) },
	"panic":   func(int) { panic("on request") },
	"eat": func(int) { // memory, until there is no more
		var kept [][]byte
		for {
			b := make([]byte, 1<<20)
			for i := range b {
				b[i] = 1
			}
			kept = append(kept, b)
			runtime.KeepAlive(kept)
		}
	},
	"log": func(n int) { // n lines of 100 bytes
		line := strings.Repeat("x", 99) + "\n"
		for range n {
			os.Stderr.WriteString(line)
		}
		say("Content-Type: text/plain\r\n\r\nlogged")
	},
	"send": func(n int) { // n MiB, after a head of several lines
		say("Status: 201 Created\r\nContent-Type: application/octet-stream\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n")
		b := make([]byte, 64<<10)
		for range n * 16 {
			os.Stdout.Write(b)
		}
	},
	"take": func(int) { // counts what comes in
		n, _ := io.Copy(io.Discard, os.Stdin)
		say("Content-Type: text/plain\r\n\r\n" + strconv.FormatInt(n, 10))
	},
	"events": func(n int) { // one line each 50 ms
		say("Content-Type: text/event-stream\r\n\r\n")
		for i := range n {
			say("data: " + strconv.Itoa(i) + "\n\n")
			time.Sleep(50 * time.Millisecond)
		}
	},
	"clock": func(int) { say(strconv.FormatInt(time.Now().Unix(), 10)) },
	"world": func(n int) { // all that could differ from run to run
		b := make([]byte, n)
		rand.Read(b)
		say(hex.EncodeToString(b) + "\n")
		began := time.Now()
		m := map[int]bool{}
		for i := range 100 {
			m[i] = true
		}
		for k := range m { // in an order that is drawn anew each time
			say(strconv.Itoa(k) + " ")
		}
		time.Sleep(3 * time.Millisecond)
		took := time.Since(began)
		say("\n" + strconv.FormatInt(time.Now().UnixNano(), 10) + " " + strconv.FormatInt(int64(took), 10) + "\n")
		if took < 3*time.Millisecond {
			say("the clock stood still while it slept\n")
		}
		io.Copy(os.Stdout, os.Stdin)
	},
	"state": func(int) { // is anything left of an earlier instance?
		say("Content-Type: text/plain\r\n\r\n" + strconv.Itoa(state))
		state++
	},
	"open": func(int) { // looks for files and the network
		_, err := os.ReadFile("/etc/passwd")
		_, err2 := os.ReadDir("/")
		say(strconv.FormatBool(err != nil && err2 != nil))
	},
	"files": func(n int) { // uses its scratch directory, then says what is in it
		text := bytes.Repeat([]byte("0123456789abcdef"), n*64)
		check(os.MkdirAll("/a/b", 0o700))
		check(os.WriteFile("/a/b/one", text, 0o600))
		check(os.Rename("/a/b/one", "/a/two"))
		check(os.Symlink("two", "/a/three"))
		got, err := os.ReadFile("/a/three")
		check(err)
		f, err := os.CreateTemp("", "x")
		check(err)
		check(os.Remove(f.Name()))
		entries, err := os.ReadDir("/a")
		check(err)
		for _, e := range entries {
			say(e.Name() + " ")
		}
		say(strconv.FormatBool(bytes.Equal(got, text)))
	},
	"fill": func(int) { // fills its scratch directory
		f, err := os.Create("/big")
		check(err)
		total := 0
		b := make([]byte, 10_000)
		for {
			n, err := f.Write(b)
			total += n
			if err != nil {
				say(strconv.Itoa(total) + " " + strconv.FormatBool(errors.Is(err, syscall.ENOSPC)))
				return
			}
		}
	},
	"print": func(int) { // print:LINES CODE
		lines, _ := strconv.Atoi(os.Args[2])
		for i := range lines {
			say("line " + strconv.Itoa(i+1) + "\n")
		}
		code, _ := strconv.Atoi(os.Args[3])
		os.Exit(code)
	},
}

var state int

func check(err error) {
	if err != nil {
		say(err.Error())
		os.Exit(1)
	}
}
