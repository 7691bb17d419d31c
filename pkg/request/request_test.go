package request

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"peercompute/pkg/admission"
	"peercompute/pkg/audit"
	"peercompute/pkg/identity"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/store"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// node is one end: everything real, on loopback.
type node struct {
	t      *testing.T
	key    *identity.Key
	store  *store.Store
	trust  *trust.List
	audit  *audit.Log
	net    *peernet.Net
	client *Client
	skew   atomic.Int64 // added to the clock, ns
}

func (n *node) now() time.Time { return time.Now().Add(time.Duration(n.skew.Load())) }

func newNode(t *testing.T, handlers map[wire.Verb]Handler) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{t: t}
	var err error
	if n.key, err = identity.Create(dir); err != nil {
		t.Fatal(err)
	}
	if n.store, err = store.Open(filepath.Join(dir, store.FileName)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.store.Close() })
	if n.trust, err = trust.Open(n.store, n.key.ID, n.now); err != nil {
		t.Fatal(err)
	}
	n.net, err = peernet.New(peernet.Config{Key: n.key.Private, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Gate: n.trust})
	if err != nil {
		t.Fatal(err)
	}
	gate, err := admission.NewGate(admission.Config{Store: n.store, Trust: n.trust, Self: n.key.ID, Now: n.now})
	if err != nil {
		t.Fatal(err)
	}
	n.audit = audit.New(audit.Config{Store: n.store, Now: n.now})
	NewServer(Config{Key: n.key, Net: n.net, Gate: gate, Store: n.store, Now: n.now, Log: slog.New(slog.DiscardHandler), Handlers: handlers, Audit: n.audit})
	n.client = NewClient(n.key, n.net, n.now)
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- n.net.Run(ctx, func() { close(ready) }) }()
	<-ready
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return n
}

func (n *node) trusts(o *node, name string) {
	n.t.Helper()
	if err := n.trust.Put(context.Background(), trust.Grant{Peer: o.key.ID, Name: name, Allow: trust.Deploy, Quota: trust.DefaultQuota()}); err != nil {
		n.t.Fatal(err)
	}
	n.net.Learn(o.key.ID, o.net.Addrs())
}

// pair makes a server with handlers and a client that trust each other.
func pair(t *testing.T, handlers map[wire.Verb]Handler) (server, client *node) {
	server, client = newNode(t, handlers), newNode(t, nil)
	server.trusts(client, "client")
	client.trusts(server, "server")
	return server, client
}

func counting(n *atomic.Int32) Handler {
	return func(context.Context, *Call) (Reply, error) {
		return Reply{Body: wire.Accepted{Workload: "aaaaaaaaaaaaaaaa"}, Commit: func(*store.Tx) error { n.Add(1); return nil }}, nil
	}
}

func TestRequestAndAnswer(t *testing.T) {
	var ran atomic.Int32
	server, client := pair(t, map[wire.Verb]Handler{wire.VerbDeploy: counting(&ran)})
	var out wire.Accepted
	if err := client.client.Do(context.Background(), server.key.ID, wire.VerbDeploy, wire.Deploy{}, &out); err != nil {
		t.Fatal(err)
	}
	if out.Workload != "aaaaaaaaaaaaaaaa" || ran.Load() != 1 {
		t.Fatalf("answer %+v after %d runs", out, ran.Load())
	}
	err := client.client.Do(context.Background(), server.key.ID, wire.VerbLogs, wire.Logs{}, nil)
	var refused *Refused
	if !errors.As(err, &refused) || refused.Cause.Kind != mesh.Unsupported || refused.Peer != server.key.ID {
		t.Fatalf("a verb without a handler: %v, want a signed Unsupported", err)
	}
}

// One peer does not take all the room that there is for requests.
func TestRoomForOthers(t *testing.T) {
	s := &Server{of: map[mesh.PeerID]int{}}
	for range maxPeer {
		if !s.enter("a") {
			t.Fatal("refused within the limit")
		}
	}
	if s.enter("a") || !s.enter("b") {
		t.Fatal("one peer takes more than its part, or leaves none")
	}
	for range maxPeer {
		s.leave("a")
	}
	s.leave("b")
	if s.all != 0 || len(s.of) != 0 {
		t.Errorf("%d are counted in the end, of %v", s.all, s.of)
	}
}

// What a handler holds for a stream is let go of also where its answer cannot be given.
func TestAnswerThatCannotBeGiven(t *testing.T) {
	held := make(chan struct{})
	server, client := pair(t, map[wire.Verb]Handler{wire.VerbDeploy: func(context.Context, *Call) (Reply, error) {
		return Reply{
			Body: func() {}, Cancel: func() { close(held) },
			Stream: func(context.Context, *peernet.Stream) error { t.Error("the stream began"); return nil },
		}, nil
	}})
	if err := client.client.Do(t.Context(), server.key.ID, wire.VerbDeploy, wire.Deploy{}, nil); err == nil {
		t.Error("it is answered")
	}
	select {
	case <-held:
	default:
		t.Error("what it holds is held for ever")
	}
}

// A clock that is days off costs one more round trip, and nothing else.
func TestWrongClocksRecoverByChallenge(t *testing.T) {
	var ran atomic.Int32
	server, client := pair(t, map[wire.Verb]Handler{wire.VerbDeploy: counting(&ran)})
	for i, skew := range []time.Duration{0, 10 * time.Minute, -10 * time.Minute, 24 * time.Hour, -24 * time.Hour} {
		client.skew.Store(int64(skew))
		if err := client.client.Do(context.Background(), server.key.ID, wire.VerbDeploy, wire.Deploy{}, nil); err != nil {
			t.Fatalf("clock off by %s: %v", skew, err)
		}
		if got := ran.Load(); got != int32(i+1) {
			t.Fatalf("clock off by %s: %d runs, want %d", skew, got, i+1)
		}
	}
}

// The same bytes sent again get the first answer, and nothing runs again.
func TestSameBytesRunOnce(t *testing.T) {
	var ran atomic.Int32
	server, client := pair(t, map[wire.Verb]Handler{wire.VerbDeploy: counting(&ran)})
	ctx := context.Background()
	h, err := client.client.hello(ctx, server.key.ID)
	if err != nil {
		t.Fatal(err)
	}
	body, err := wire.Marshal(wire.Deploy{})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	data, err := wire.SealRequest(client.key.Private, wire.Request{
		Version: wire.Version, Verb: wire.VerbDeploy, From: client.key.ID,
		To: server.key.ID, Incarnation: h.Incarnation, Nonce: wire.NewNonce(), Issued: now.UnixMilli(), Expires: now.Add(time.Minute).UnixMilli(), Body: body,
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			var out wire.Accepted
			s, err := client.client.Send(ctx, server.key.ID, wire.VerbDeploy, data, &out)
			if err != nil || out.Workload != "aaaaaaaaaaaaaaaa" {
				t.Errorf("%+v, %v", out, err)
				return
			}
			s.Close()
		})
	}
	wg.Wait()
	if ran.Load() != 1 {
		t.Fatalf("ran %d times, want once", ran.Load())
	}
	// Another trusted peer that got hold of the bytes is refused.
	thief := newNode(t, nil)
	server.trusts(thief, "thief")
	thief.trusts(server, "server")
	_, err = thief.client.Send(ctx, server.key.ID, wire.VerbDeploy, data, nil)
	if e := mesh.AsError(err); e == nil || e.Kind == mesh.None || ran.Load() != 1 {
		t.Fatalf("another peer's replay: %v after %d runs", err, ran.Load())
	}
}

func TestAStreamIsGivenOnce(t *testing.T) {
	server, client := pair(t, map[wire.Verb]Handler{wire.VerbLogs: func(context.Context, *Call) (Reply, error) {
		return Reply{Body: wire.Empty{}, Stream: func(_ context.Context, s *peernet.Stream) error {
			_, err := io.WriteString(s, "streamed")
			return err
		}}, nil
	}})
	s, err := client.client.Open(context.Background(), server.key.ID, wire.VerbLogs, wire.Logs{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(s); string(got) != "streamed" || err != nil {
		t.Fatalf("read %q, %v", got, err)
	}
}

// A refusal inside the transaction leaves no effect and is what the asker sees.
func TestRefusalInTheTransaction(t *testing.T) {
	server, client := pair(t, map[wire.Verb]Handler{wire.VerbDeploy: func(context.Context, *Call) (Reply, error) {
		return Reply{Body: wire.Empty{}, Commit: func(tx *store.Tx) error {
			if err := tx.Put(store.Workloads, []byte("half"), []byte("done")); err != nil {
				return err
			}
			return mesh.Errorf(mesh.Quota, "no more").WithRule("grant.workloads").WithHint("ask")
		}}, nil
	}})
	err := client.client.Do(context.Background(), server.key.ID, wire.VerbDeploy, wire.Deploy{}, nil)
	if e := mesh.AsError(err); e.Kind != mesh.Quota || e.Rule != "grant.workloads" || e.Hint != "ask" || e.Msg != "no more" {
		t.Fatalf("got %+v", e)
	}
	err = server.store.View(func(tx *store.Tx) error {
		if tx.Get(store.Workloads, []byte("half")) != nil {
			t.Error("half of a refused effect is on disk")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A peer that lost its state is asked anew by itself, with a new request.
func TestLostStateIsNoticed(t *testing.T) {
	var ran atomic.Int32
	server, client := pair(t, map[wire.Verb]Handler{wire.VerbDeploy: counting(&ran)})
	client.client.known[server.key.ID] = wire.Incarnation{1, 2, 3}
	if err := client.client.Do(context.Background(), server.key.ID, wire.VerbDeploy, wire.Deploy{}, nil); err != nil {
		t.Fatal(err)
	}
	if ran.Load() != 1 {
		t.Fatalf("ran %d times", ran.Load())
	}
}

func TestJunkIsAnsweredAndRunsNothing(t *testing.T) {
	var ran atomic.Int32
	server, client := pair(t, map[wire.Verb]Handler{wire.VerbDeploy: counting(&ran)})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := client.client.Send(ctx, server.key.ID, wire.VerbDeploy, []byte("not an envelope"), nil)
	if e := mesh.AsError(err); e.Kind != mesh.Forged || e.Rule != "wire.envelope" {
		t.Fatalf("junk: %v", err)
	}
	s, err := client.net.Open(ctx, server.key.ID, wire.ProtocolRequest)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte{0xff, 0xff, 0xff, 0xff}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(make([]byte, 1)); err == nil {
		t.Fatal("an oversized message is answered")
	}
	if ran.Load() != 0 {
		t.Fatal("something ran")
	}
}
