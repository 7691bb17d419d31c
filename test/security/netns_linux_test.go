package security

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"peercompute/pkg/testkit"
)

// between is three network namespaces: alice's, bob's, and the middle that alone can
// reach both. Nothing is forwarded: what passes was passed on by a process.
type between struct {
	t                  *testing.T
	alice, middle, bob string
}

// The addresses: each side's own, and the middle's on that side.
const (
	aliceIP, middleForAlice = "10.213.1.2", "10.213.1.1"
	bobIP, middleForBob     = "10.213.2.2", "10.213.2.1"
)

func newBetween(t *testing.T) *between {
	t.Helper()
	testkit.Need(t, "netns")
	var id [3]byte
	rand.Read(id[:])
	n := "pc" + hex.EncodeToString(id[:])
	b := &between{t, n + "a", n + "m", n + "b"}
	for _, ns := range []string{b.alice, b.middle, b.bob} {
		ip(t, "netns", "add", ns)
		t.Cleanup(func() { ip(t, "netns", "del", ns) })
		ip(t, "-n", ns, "link", "set", "lo", "up")
	}
	for _, l := range [][]string{{b.alice, aliceIP, middleForAlice}, {b.bob, bobIP, middleForBob}} {
		end, far := "e"+l[0][2:], "m"+l[0][2:]
		ip(t, "-n", b.middle, "link", "add", far, "type", "veth", "peer", "name", end, "netns", l[0])
		ip(t, "-n", l[0], "addr", "add", l[1]+"/24", "dev", end)
		ip(t, "-n", b.middle, "addr", "add", l[2]+"/24", "dev", far)
		ip(t, "-n", l[0], "link", "set", end, "up")
		ip(t, "-n", b.middle, "link", "set", far, "up")
	}
	return b
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Errorf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// inMiddle runs fn on a thread in the middle: sockets that it makes live there.
func (b *between) inMiddle(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		f, err := os.Open("/run/netns/" + b.middle)
		if err == nil {
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
			f.Close()
		}
		if err == nil {
			err = fn()
		}
		done <- err
	}()
	return <-done
}
