package member

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/identity"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/store"
	"peercompute/pkg/testkit"
)

// serve runs a member until the test ends.
func serve(t testing.TB, m *Member, h Hooks) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- m.Run(ctx, nil, nil, h, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, m.Close()); err != nil {
			t.Error(err)
		}
	})
}

type everyone struct{}

func (everyone) Allowed(mesh.PeerID) bool { return true }

// outsider is a peer's end of the network, without a list of its own.
func outsider(t testing.TB, listen ...string) (*identity.Key, *peernet.Net) {
	t.Helper()
	key, err := identity.Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	n, err := peernet.New(peernet.Config{Key: key.Private, Gate: everyone{}, Listen: listen})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return key, n
}

const pump = "/test/pump/1"

// revoke opens streams to a fresh member that are busy all the time, removes their
// peer, and returns how long the removal itself took, and how long it was until
// everything had ended at both ends. late counts bytes that a handler took after
// the removal was reported.
func revoke(t testing.TB, streams int, transport string) (reported, all time.Duration, late int64) {
	t.Helper()
	home, err := os.MkdirTemp("", "pc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	m, err := Open(Config{Home: home, Listen: []string{"/ip4/127.0.0.1" + transport}, Role: "peer", Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	hooks := Hooks{Withdraw: func(context.Context, mesh.PeerID, bool) ([]mesh.WorkloadID, error) { return nil, nil }}
	serve(t, m, hooks)
	key, peer := outsider(t)
	a := &api{m: m, hooks: hooks}
	ctx := context.Background()
	if _, err := a.AddPeer(ctx, control.AddPeer{ID: key.ID.String(), Name: "bob"}); err != nil {
		t.Fatal(err)
	}

	var removed atomic.Bool
	var after atomic.Int64
	var handlers, ends sync.WaitGroup
	m.Net.Handle(pump, func(ctx context.Context, s *peernet.Stream) {
		defer handlers.Done()
		b := make([]byte, 512)
		for {
			n, err := s.Read(b)
			if n > 0 && removed.Load() {
				after.Add(int64(n))
			}
			if err == nil {
				_, err = s.Write(b[:n])
			}
			if err != nil {
				return
			}
		}
	})
	handlers.Add(streams)
	peer.Learn(m.Key.ID, m.Net.Addrs())
	var opened []*peernet.Stream
	for range streams {
		open, cancel := context.WithTimeout(ctx, time.Minute)
		s, err := peer.Open(open, m.Key.ID, pump)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		opened = append(opened, s)
	}
	for _, s := range opened {
		ends.Go(func() { // as fast as the echo comes back, until the stream breaks
			b := []byte("y")
			for {
				if _, err := s.Write(b); err != nil {
					return
				}
				if _, err := io.ReadFull(s, b); err != nil {
					return
				}
			}
		})
	}
	stall, began := testkit.WatchStall(t), time.Now()
	if _, err := a.RemovePeer(ctx, "bob", false); err != nil {
		t.Fatal(err)
	}
	removed.Store(true)
	reported = time.Since(began)
	ended := make(chan struct{})
	go func() {
		handlers.Wait()
		ends.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("a stream outlives the removal")
	}
	all = time.Since(began) - stall.Lost()
	if _, up := m.Net.Connected(key.ID); up {
		t.Error("still connected")
	}
	return reported, all, after.Load()
}

// A peer with a thousand busy streams is out within a second, and no byte of it is
// taken after the removal was reported.
func TestRevocationWithAThousandStreams(t *testing.T) {
	for _, c := range []struct {
		transport string
		streams   int
	}{{"/tcp/0", 1000}, {"/udp/0/quic-v1", 250}} { // libp2p's QUIC carries no more than 256
		transport, streams := c.transport, c.streams
		reported, all, late := revoke(t, streams, transport)
		t.Logf("%s: %d streams: removal reported after %s, everything ended after %s", transport, streams, reported.Round(time.Millisecond), all.Round(time.Millisecond))
		if all > time.Second {
			t.Errorf("%s: everything ended after %s, want within a second", transport, all)
		}
		if late > 0 {
			t.Errorf("%s: %d bytes were taken after the removal", transport, late)
		}
	}
}

// BenchmarkRevocation is how long it takes to remove a peer with 1,000 streams.
func BenchmarkRevocation(b *testing.B) {
	var sum time.Duration
	for range b.N {
		b.StopTimer()
		_, all, _ := revoke(b, 1000, "/tcp/0")
		sum += all
		b.StartTimer()
	}
	b.ReportMetric(float64(sum.Milliseconds())/float64(b.N), "ms/revocation")
}

const stepEnv = "PEERCOMPUTE_TEST_REMOVAL" // HOME|STEP|KEEP: where a child process removes bob and dies

// markStopped is what Withdraw does in these tests, in the state file as a real one.
func markStopped(m *Member, p mesh.PeerID, keep bool) error {
	return m.Store.Update(context.Background(), func(tx *store.Tx) error {
		return tx.Put(store.Workloads, []byte("stopped"), fmt.Appendf(nil, "%s %t", p, keep))
	})
}

// The process is killed right behind each step of a removal, by SIGKILL. The next
// start carries the removal through, and does nothing twice that was finished.
func TestRemovalIsResumedFromEveryStep(t *testing.T) {
	if spec := os.Getenv(stepEnv); spec != "" {
		dieInRemoval(t, spec)
		return
	}
	steps := []string{stepDenied, stepDisconnected, stepForgotten, "withdrawing", stepWithdrawn, stepFinished}
	for i, step := range steps {
		t.Run(step, func(t *testing.T) {
			home := shortDir(t)
			m := mustOpen(t, home)
			bob := otherPeer(t)
			if _, err := (&api{m: m}).AddPeer(context.Background(), control.AddPeer{ID: bob.String(), Name: "bob"}); err != nil {
				t.Fatal(err)
			}
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			keep := i%2 == 1
			child := exec.Command(os.Args[0], "-test.run=^TestRemovalIsResumedFromEveryStep$", "-test.count=1")
			child.Env = append(os.Environ(), fmt.Sprintf("%s=%s|%s|%t", stepEnv, home, step, keep))
			out, err := child.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the child was not killed: %v\n%s", err, out)
			}

			m = mustOpen(t, home)
			if m.Trust.Allowed(bob) {
				t.Error("bob is trusted again")
			}
			calls := 0
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			err = m.Run(ctx, nil, nil, Hooks{Withdraw: func(_ context.Context, p mesh.PeerID, kept bool) ([]mesh.WorkloadID, error) {
				calls++
				return nil, markStopped(m, p, kept)
			}}, cancel)
			if err != nil {
				t.Fatal(err)
			}
			if want := 1; step == stepFinished && calls != 0 || step != stepFinished && calls != want {
				t.Errorf("Withdraw was called %d times at the next start", calls)
			}
			err = m.Store.View(func(tx *store.Tx) error {
				if got, want := string(tx.Get(store.Workloads, []byte("stopped"))), fmt.Sprintf("%s %t", bob, keep); got != want {
					t.Errorf("what bob has here ended as %q, want %q", got, want)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Trust.Unfinished(func(mesh.PeerID, bool) { t.Error("the removal is still unfinished") }); err != nil {
				t.Fatal(err)
			}
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func dieInRemoval(t *testing.T, spec string) {
	parts := strings.Split(spec, "|")
	home, step, keep := parts[0], parts[1], parts[2] == "true"
	die := func(at string) {
		if at == step {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	m := mustOpen(t, home)
	m.step = die
	a := &api{m: m, hooks: Hooks{Withdraw: func(_ context.Context, p mesh.PeerID, keep bool) ([]mesh.WorkloadID, error) {
		die("withdrawing")
		return nil, markStopped(m, p, keep)
	}}}
	_, err := a.RemovePeer(context.Background(), "bob", keep)
	t.Fatalf("the process outlived %s: %v", step, err)
}
