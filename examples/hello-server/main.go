// Hello-server is a web server for Peer Compute that keeps running: an ordinary
// net/http program, built for WebAssembly with
//
//	GOOS=wasip1 GOARCH=wasm go build -o hello-server.wasm ./examples/hello-server
//	peerctl deploy hello-server.wasm --serve --publish
//
// Its listener is open when it begins, at descriptor 3 (LISTEN_FDS). It keeps what
// it knows in memory for as long as it runs; when nobody has asked for anything for
// a while it is ended, and the next request starts it anew.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

func main() {
	listener, err := listen()
	if err != nil {
		fmt.Fprintln(os.Stderr, "hello-server:", err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stderr, "hello-server: serving")
	if err := http.Serve(listener, routes()); err != nil {
		fmt.Fprintln(os.Stderr, "hello-server:", err)
		os.Exit(1)
	}
}

// listen takes over the listener that was passed in or, where there is none, opens
// one, so that the same program can be tried without a peer.
func listen() (net.Listener, error) {
	if os.Getenv("LISTEN_FDS") == "" {
		return net.Listen("tcp", "localhost:8080")
	}
	const first = 3
	if err := nonblocking(first); err != nil {
		return nil, err
	}
	return net.FileListener(os.NewFile(first, "listener"))
}

func routes() http.Handler {
	var served atomic.Int64
	began := time.Now()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(w, "Hello from a server on a peer!\nrequest %d, %s on %s\n", served.Add(1), r.URL.Path, r.Host)
	})
	mux.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil { // to answer while it still reads
			fmt.Fprintln(os.Stderr, "echo:", err)
		}
		if _, err := io.Copy(w, r.Body); err != nil {
			fmt.Fprintln(os.Stderr, "echo:", err)
		}
	})
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.URL.Query().Get("n"))
		if err != nil || n < 1 || n > 1000 {
			n = 3
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range n {
			fmt.Fprintf(w, "data: %d\n\n", i)
			if err := http.NewResponseController(w).Flush(); err != nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	mux.HandleFunc("GET /up", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, time.Since(began).Round(time.Millisecond), served.Load())
	})
	// Three ways to be in trouble, to see what becomes of it.
	mux.HandleFunc("GET /spin", func(http.ResponseWriter, *http.Request) {
		//lint:ignore SA5002 to spin is what it is for
		for {
		}
	})
	mux.HandleFunc("GET /sleep", func(w http.ResponseWriter, r *http.Request) {
		d, err := time.ParseDuration(r.URL.Query().Get("for"))
		if err != nil {
			http.Error(w, "say ?for=1s", http.StatusBadRequest)
			return
		}
		select {
		case <-time.After(d):
		case <-r.Context().Done():
		}
		fmt.Fprintln(w, "slept")
	})
	mux.HandleFunc("GET /exit", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
	return mux
}
