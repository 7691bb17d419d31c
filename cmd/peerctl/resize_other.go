//go:build !unix

package main

import "os"

// resized tells of nothing: this system sends no signal when a terminal changes.
func resized() (<-chan os.Signal, func()) { return nil, func() {} }
