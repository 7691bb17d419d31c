package testkit

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// canUnshare tries to make a network namespace, on a thread that ends with it.
func canUnshare() string {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread goes with the goroutine
		done <- unix.Unshare(unix.CLONE_NEWNET)
	}()
	if err := <-done; err != nil {
		return "no network namespace can be made: " + err.Error()
	}
	return ""
}

func canTunnel() string {
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return "there are no TUN devices: " + err.Error()
	}
	f.Close()
	return ""
}

func canLoop() string {
	f, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "there are no loop devices: " + err.Error()
	}
	f.Close()
	return ""
}
