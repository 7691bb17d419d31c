//go:build !linux

package testkit

func canUnshare() string { return "not Linux" }
func canLoop() string    { return "not Linux" }
func canTunnel() string  { return "not Linux" }
