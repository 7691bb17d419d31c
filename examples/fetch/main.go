// Fetch prints what a URL answers: an ordinary program with an http.Client, which as
// a WASM guest has its requests made by the peer that it runs on.
//
//	GOOS=wasip1 GOARCH=wasm go build -o fetch.wasm ./examples/fetch
//	peerctl run --allow-host example.org:443 fetch.wasm https://example.org/
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: fetch URL")
		os.Exit(2)
	}
	client := &http.Client{Transport: transport()}
	res, err := client.Get(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "fetch:", err)
		os.Exit(1)
	}
	defer res.Body.Close()
	fmt.Fprintln(os.Stderr, res.Status)
	if _, err := io.Copy(os.Stdout, res.Body); err != nil {
		fmt.Fprintln(os.Stderr, "fetch:", err)
		os.Exit(1)
	}
}
