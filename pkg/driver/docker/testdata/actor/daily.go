package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// daily plays what people do inside a workload that runs:
//
//	actor keep N          writes N bytes to /tmp/kept and serves
//	actor rights          prints what /proc says of its own rights
//	actor copy            copies stdin to stdout, then says to stderr how much
//	actor linger            ignores what asks it to end, says "ready" and waits for ever
//	actor spawn           starts a linger as its child and is one itself
//	actor flood           writes to stdout for ever
//	actor chatter         writes lines of 128 bytes for ever
//	actor eaters N        starts N actors that eat, one after the other, and serves
//	actor size            prints the size of its terminal at each change
//	actor processes       prints how many processes live
//	actor stat FILE       prints its mode, and whether it is the actor's own
//	actor write FILE TEXT writes a file and has it on disk before it ends
//	actor read FILE       prints a file
//	actor fill FILE       writes to a file until that fails, and prints how much there was and why
//	actor mounts          prints what is mounted
func daily(args []string) bool {
	switch args[0] {
	case "keep":
		n, _ := strconv.Atoi(args[1])
		if err := os.WriteFile("/tmp/kept", make([]byte, n), 0o600); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		serve("")
	case "rights":
		b, _ := os.ReadFile("/proc/self/status")
		for line := range strings.SplitSeq(string(b), "\n") {
			switch key, _, _ := strings.Cut(line, ":"); key {
			case "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp":
				fmt.Println(line)
			}
		}
	case "copy":
		n, _ := io.Copy(os.Stdout, os.Stdin)
		fmt.Fprintf(os.Stderr, "%d bytes\n", n)
		code, _ := strconv.Atoi(args[1])
		os.Exit(code)
	case "spawn", "linger":
		signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE)
		if args[0] == "spawn" {
			if err := exec.Command("/proc/self/exe", "linger").Start(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
		fmt.Println("ready")
		for {
			time.Sleep(time.Hour)
		}
	case "flood":
		for {
			if _, err := os.Stdout.Write(make([]byte, 32<<10)); err != nil {
				os.Exit(1)
			}
		}
	case "chatter":
		lines := bytes.Repeat(append(bytes.Repeat([]byte{'x'}, 127), '\n'), 256)
		for {
			if _, err := os.Stdout.Write(lines); err != nil {
				os.Exit(1)
			}
		}
	case "eaters":
		n, _ := strconv.Atoi(args[1])
		for range n {
			_ = exec.Command("/proc/self/exe", "eat").Run() // ends by a signal
		}
		serve("")
	case "size":
		changed := make(chan os.Signal, 8)
		signal.Notify(changed, syscall.SIGWINCH)
		for {
			var size [4]uint16
			_, _, err := syscall.Syscall(syscall.SYS_IOCTL, os.Stdout.Fd(), syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size)))
			fmt.Printf("%d x %d %v\n", size[1], size[0], err == 0)
			<-changed
		}
	case "stat":
		st, err := os.Stat(args[1])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(st.Mode(), "mine", st.Sys().(*syscall.Stat_t).Uid == uint32(os.Getuid()))
	case "processes":
		all, _ := os.ReadDir("/proc")
		n := 0
		for _, e := range all {
			st, err := os.ReadFile("/proc/" + e.Name() + "/stat")
			// What was killed stays as a zombie where nobody waits for it.
			if _, noPID := strconv.Atoi(e.Name()); noPID == nil && err == nil && !strings.Contains(string(st), ") Z ") {
				n++
			}
		}
		fmt.Println(n)
	case "write":
		f, err := os.Create(args[1])
		if err == nil {
			_, err = f.WriteString(args[2])
		}
		if err == nil {
			err = f.Sync()
		}
		exitOn(err)
	case "read":
		b, err := os.ReadFile(args[1])
		exitOn(err)
		os.Stdout.Write(b)
	case "fill":
		f, err := os.Create(args[1])
		exitOn(err)
		n, block := 0, make([]byte, 1<<20)
		for {
			m, err := f.Write(block)
			if n += m; err != nil {
				fmt.Println(n, err)
				return true
			}
		}
	case "mounts":
		b, err := os.ReadFile("/proc/self/mounts")
		exitOn(err)
		os.Stdout.Write(b)
	default:
		return false
	}
	return true
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
