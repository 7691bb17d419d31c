package member

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUnlockedBesideChild: a home that was let go is free, although a child that is
// just being started still has the lock's file open.
func TestUnlockedBesideChild(t *testing.T) {
	home := t.TempDir()
	unlock, err := lockHome(home)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockHome(home); err == nil {
		t.Fatal("locked twice")
	}
	held := -1 // as the child would have it
	for fd := range 1024 {
		if name, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); name == filepath.Join(home, "lock") {
			if held, err = unix.Dup(fd); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	if held < 0 {
		t.Fatal("the lock's descriptor is not found")
	}
	defer unix.Close(held)
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	again, err := lockHome(home)
	if err != nil {
		t.Fatal(err)
	}
	if err := again(); err != nil {
		t.Fatal(err)
	}
}
