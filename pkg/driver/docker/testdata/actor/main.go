// Actor plays the workloads that the driver's tests need:
//
//	actor serve           answers "hello" on :8080, ends on SIGTERM
//	actor serve ADDRESS   the same on another address
//	actor stubborn        the same, and ignores SIGTERM
//	actor print N CODE    prints N lines and exits with CODE
//	actor both            writes to stdout and stderr in turns
//	actor eat             takes memory until it is killed
//	actor env             prints user, hostname, HOME, directory, resolv.conf
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

func main() {
	args := append(os.Args[1:], "", "", "")
	switch args[0] {
	case "serve":
		serve(args[1])
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		serve("")
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
	case "env":
		host, _ := os.Hostname()
		dir, _ := os.Getwd()
		resolv, _ := os.ReadFile("/etc/resolv.conf")
		fmt.Printf("uid %d gid %d host %s home %s dir %s\n%s", os.Getuid(), os.Getgid(), host, os.Getenv("HOME"), dir, resolv)
	default:
		fmt.Fprintln(os.Stderr, "no such part:", args[0])
		os.Exit(2)
	}
}

func serve(addr string) {
	if addr == "" {
		addr = ":8080"
	}
	err := http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }))
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
