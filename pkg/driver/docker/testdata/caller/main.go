// Caller connects to what it is told to, from inside its container:
//
//	caller               answers on :8080, and "pong" on :9000 and 127.0.0.1:9001
//	caller ADDRESS       the same, after it has connected to ADDRESS as the first
//	                     thing it does, and printed what came of it
//
// GET /tcp?to=ADDRESS and /udp?to=ADDRESS say "pong" if whoever is there does, else
// what failed (with never=ADDRESS it does not wait for long); /lookup?name=NAME says the addresses of a name.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

func main() {
	if len(os.Args) > 1 {
		fmt.Println("first:", connect("tcp", os.Args[1], 5*time.Second))
	}
	for _, addr := range []string{":9000", "127.0.0.1:9001"} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		go pong(l)
	}
	for _, network := range []string{"tcp", "udp"} {
		http.HandleFunc("/"+network, func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			if to := q.Get("never"); to != "" {
				io.WriteString(w, connect(network, to, 300*time.Millisecond))
				return
			}
			io.WriteString(w, connect(network, q.Get("to"), 5*time.Second))
		})
	}
	http.HandleFunc("/lookup", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
		defer cancel()
		addrs, err := net.DefaultResolver.LookupHost(ctx, r.URL.Query().Get("name"))
		if err != nil {
			fmt.Fprint(w, err)
			return
		}
		io.WriteString(w, strings.Join(addrs, " "))
	})
	fmt.Println(http.ListenAndServe(":8080", nil))
	os.Exit(1)
}

func pong(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		io.WriteString(c, "pong")
		c.Close()
	}
}

func connect(network, to string, patience time.Duration) string {
	c, err := net.DialTimeout(network, to, patience)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err.Error()
	}
	if network == "udp" {
		if _, err := c.Write([]byte("ping")); err != nil {
			return err.Error()
		}
	}
	b := make([]byte, 4)
	if _, err := io.ReadFull(c, b); err != nil {
		return err.Error()
	}
	return string(b)
}
