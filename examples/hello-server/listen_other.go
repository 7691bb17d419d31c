//go:build !wasip1

package main

// nonblocking has nothing to do where Go sees to it by itself.
func nonblocking(int) error { return nil }
