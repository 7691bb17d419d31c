//go:build !wasip1

package main

import "net/http"

// transport is the usual one where there is a network.
func transport() http.RoundTripper { return http.DefaultTransport }
