// Hello is an HTTP service for Peer Compute: an ordinary net/http/cgi program,
// built for WebAssembly with
//
//	GOOS=wasip1 GOARCH=wasm go build -o hello.wasm ./examples/hello-wasm
//
// Every request runs a fresh instance of it, so nothing is shared between two
// requests and nothing is left after one.
package main

import (
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cgi"
	"os"
	"runtime"
	"slices"
	"strconv"
)

const page = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Hello from a peer</title>
<style>body{font:1.1rem/1.6 system-ui,sans-serif;max-width:38rem;margin:4rem auto;padding:0 1rem;color:#223}
code{background:#eef;padding:.1em .35em;border-radius:.3em}td{padding:.15rem 1rem .15rem 0;vertical-align:top}</style></head>
<body><h1>Hello from a peer 👋</h1>
<p>You reached a WebAssembly program that runs on somebody's own machine. This request got an instance of its own; it is gone by now.</p>
<table>
<tr><td>method</td><td><code>%s</code></td></tr>
<tr><td>path</td><td><code>%s</code></td></tr>
<tr><td>host</td><td><code>%s</code></td></tr>
<tr><td>built with</td><td><code>%s</code></td></tr>
</table>
<p>Try <a href="/env">/env</a>, <a href="/status?code=418">/status?code=418</a>, or <code>curl -d 'anything' …/echo</code>.</p>
</body></html>
`

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", hello)
	mux.HandleFunc("/echo", echo)
	mux.HandleFunc("/env", env)
	mux.HandleFunc("/status", status)
	mux.HandleFunc("/spin", spin)
	if err := cgi.Serve(mux); err != nil {
		fmt.Fprintln(os.Stderr, "hello:", err)
		os.Exit(1)
	}
}

// hello greets. Anybody who would rather have text says so with Accept: text/plain.
func hello(w http.ResponseWriter, r *http.Request) {
	built := fmt.Sprintf("%s for %s/%s", runtime.Version(), runtime.GOOS, runtime.GOARCH)
	if r.Header.Get("Accept") == "text/plain" {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(w, "Hello from a peer!\n%s %s on %s, %s\n", r.Method, r.URL.Path, r.Host, built)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	safe := html.EscapeString
	fmt.Fprintf(w, page, safe(r.Method), safe(r.URL.Path), safe(r.Host), safe(built))
}

// echo answers with the body of the request, as it comes in.
func echo(w http.ResponseWriter, r *http.Request) {
	kind := r.Header.Get("Content-Type")
	if kind == "" {
		kind = "application/octet-stream"
	}
	w.Header().Set("Content-Type", kind)
	if _, err := io.Copy(w, r.Body); err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
	}
}

// env lists the environment: what the deployer passed and what CGI says of the request.
func env(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	vars := os.Environ()
	slices.Sort(vars)
	for _, kv := range vars {
		fmt.Fprintln(w, kv)
	}
}

// status answers with the status code that the query names.
func status(w http.ResponseWriter, r *http.Request) {
	code, err := strconv.Atoi(r.URL.Query().Get("code"))
	if err != nil || code < 200 || code > 599 {
		http.Error(w, "say ?code=N with N from 200 to 599", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	fmt.Fprintln(w, code, http.StatusText(code))
}

// spin never answers: it shows that a guest is stopped at its limits, and that
// nobody else notices.
func spin(http.ResponseWriter, *http.Request) {
	n := 0
	for {
		n++
	}
}
