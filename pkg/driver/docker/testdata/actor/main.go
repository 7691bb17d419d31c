// Actor plays the workloads that the driver's tests need:
//
//	actor serve           answers "hello" on :8080, ends on SIGTERM
//	actor serve ADDRESS   the same on another address
//	actor stubborn        the same, and ignores SIGTERM
//	actor polite          the same as serve, and ends with 0 when it is asked to
//	actor print N CODE    prints N lines and exits with CODE
//	actor both            writes to stdout and stderr in turns
//	actor eat             takes memory until it is killed
//	actor confined        exits with 0 if it is confined as the container's first process is
//	actor hang            goes on for an hour
//	actor env             prints user, hostname, HOME, directory, resolv.conf
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	args := append(os.Args[1:], "", "", "")
	switch args[0] {
	case "serve":
		serve(args[1])
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		serve("")
	case "polite":
		asked := make(chan os.Signal, 1)
		signal.Notify(asked, syscall.SIGTERM)
		go serve("")
		<-asked
	case "print":
		n, _ := strconv.Atoi(args[1])
		code, _ := strconv.Atoi(args[2])
		for i := range n {
			fmt.Printf("line %d\n", i+1)
		}
		os.Exit(code)
	case "both":
		for i := range 3 {
			fmt.Fprintf(os.Stdout, "out %d\n", i)
			fmt.Fprintf(os.Stderr, "err %d\n", i)
		}
	case "eat":
		var held [][]byte
		for {
			b := make([]byte, 1<<20)
			for i := range b {
				b[i] = 1
			}
			held = append(held, b)
		}
	case "confined":
		if why := unconfined(); why != "" {
			fmt.Println(why)
			os.Exit(1)
		}
	case "hang":
		time.Sleep(time.Hour)
	case "env":
		host, _ := os.Hostname()
		dir, _ := os.Getwd()
		resolv, _ := os.ReadFile("/etc/resolv.conf")
		fmt.Printf("uid %d gid %d host %s home %s dir %s\n%s", os.Getuid(), os.Getgid(), host, os.Getenv("HOME"), dir, resolv)
	default:
		if daily(args) {
			return
		}
		fmt.Fprintln(os.Stderr, "no such part:", args[0])
		os.Exit(2)
	}
}

// unconfined says in what this process may do more than the first one, and more
// than any container may.
func unconfined() string {
	own, err := os.ReadFile("/proc/self/status")
	first, err1 := os.ReadFile("/proc/1/status")
	if err != nil || err1 != nil {
		return fmt.Sprint(err, err1)
	}
	must := map[string]string{"NoNewPrivs:": "1", "Seccomp:": "2", "CapEff:": "0000000000000000", "CapPrm:": "0000000000000000", "CapBnd:": "0000000000000000"}
	for _, key := range []string{"Uid:", "Gid:", "Groups:", "NoNewPrivs:", "Seccomp:", "CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"} {
		mine, its := field(own, key), field(first, key)
		if mine != its || must[key] != "" && mine != must[key] || key == "Uid:" && strings.HasPrefix(mine, "0") {
			return fmt.Sprintf("%s %q, of the first process %q", key, mine, its)
		}
	}
	return ""
}

func field(status []byte, key string) string {
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			return strings.TrimSpace(rest)
		}
	}
	return "missing"
}

func serve(addr string) {
	if addr == "" {
		addr = ":8080"
	}
	err := http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }))
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
