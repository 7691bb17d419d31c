package e2e

import (
	"context"
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"
	"time"

	"peercompute/pkg/admission"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
	"peercompute/test/internal/testmesh"
)

// sender is an actor that bob trusts, with a module that bob holds.
type sender struct {
	*testmesh.Actor
	bob    *testmesh.Node
	inc    wire.Incarnation
	digest string // of a module
}

func newSender(t *testing.T, bob *testmesh.Node) *sender {
	t.Helper()
	a := testmesh.NewActor(t, bob.Addrs()...)
	bob.Must("peers", "add", a.Key.ID.String(), "--name", "actor", "--allow", "deploy,exec", "--cpus", "8", "--memory", "4G", "--max-workloads", "20", "--requests", "10000/min")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	h, err := a.Hello(ctx, bob.ID())
	if err != nil {
		t.Fatal(err)
	}
	// Bob gets the module as his own; a deploy only names it.
	module := testmesh.Tiny(t, "hello")
	data, err := os.ReadFile(module)
	if err != nil {
		t.Fatal(err)
	}
	c := bob.Client()
	defer c.Close()
	f, err := os.Open(module)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := c.UploadModule(ctx, f)
	if err != nil || m.Size != int64(len(data)) {
		t.Fatalf("uploaded %+v, %v", m, err)
	}
	return &sender{a, bob, h.Incarnation, m.Digest}
}

func (s *sender) deploy(t *testing.T, name string) wire.Request {
	t.Helper()
	return s.Request(t, s.bob.ID(), s.inc, wire.VerbDeploy, wire.Deploy{Spec: mesh.Spec{
		Name: name, Runtime: mesh.Wasm, Shape: mesh.HTTP, Image: "tiny.wasm", Digest: s.digest,
	}})
}

// send delivers bytes as they are and returns the answer.
func (s *sender) send(t *testing.T, data []byte) (wire.Accepted, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var ok wire.Accepted
	st, err := s.Requests.Send(ctx, s.bob.ID(), wire.VerbDeploy, data, &ok)
	if err == nil {
		st.Reset()
	}
	return ok, err
}

// A request that is sent again gets the first answer, and nothing happens twice:
// at once, after a restart, after kill -9.
func TestReplay(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	bob := m.Peer("bob")
	s := newSender(t, bob)
	data := s.Seal(t, s.deploy(t, "hello"))
	first, err := s.send(t, data)
	if err != nil {
		t.Fatal(err)
	}
	if want := mesh.NewWorkloadID(sha256.Sum256(data)); first.Workload != want {
		t.Errorf("the workload is %s, want %s, which follows from the request", first.Workload, want)
	}
	for _, c := range []struct {
		name   string
		before func()
	}{
		{"at once", func() {}},
		{"after kill -9", func() { bob.Kill(); bob.Start() }},
		{"after a restart", func() { bob.Stop(); bob.Start() }},
		{"after the workload was removed", func() { bob.Must("rm", "-f", "hello") }},
	} {
		c.before()
		var again wire.Accepted
		within(t, time.Minute, c.name, func() bool { // the actor's connection may have to be made anew
			again, err = s.send(t, data)
			return mesh.KindOf(err) != mesh.Unavailable
		})
		if err != nil || again.Workload != first.Workload {
			t.Errorf("%s: got %+v, %v; want the first answer", c.name, again, err)
		}
		want := 1
		if c.name == "after the workload was removed" {
			want = 0
		}
		if n := len(ps(t, bob)); n != want {
			t.Errorf("%s: %d workloads, want %d", c.name, n, want)
		}
	}
}

// Bob recorded the request and was killed before he acted upon it. Sent again it
// is refused as interrupted, and a new request for the same goes through.
func TestReplayOfAnInterruptedRequest(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	bob := m.Peer("bob")
	s := newSender(t, bob)
	bob.Stop()
	data := s.Seal(t, s.deploy(t, "hello"))
	recordOnly(t, bob, s.Key.ID, data)
	bob.Start()

	var err error
	within(t, time.Minute, "an answer", func() bool {
		_, err = s.send(t, data)
		return mesh.KindOf(err) != mesh.Unavailable
	})
	refusedBy(t, err, mesh.Interrupted, "request.nonce")
	if n := len(ps(t, bob)); n != 0 {
		t.Errorf("%d workloads, want none", n)
	}
	if _, err := s.send(t, s.Seal(t, s.deploy(t, "hello"))); err != nil {
		t.Errorf("asked anew: %v", err)
	}
}

// recordOnly does to a stopped node's state what it does itself up to the point
// where it acts: it admits the request, so that its nonce is on disk.
func recordOnly(t *testing.T, n *testmesh.Node, from mesh.PeerID, data []byte) {
	t.Helper()
	st, err := store.Open(filepath.Join(n.Home, store.FileName))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	list, err := trust.Open(st, n.ID(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	gate, err := admission.NewGate(admission.Config{Store: st, Trust: list, Self: n.ID(), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	o, err := wire.OpenRequest(data)
	if err != nil {
		t.Fatal(err)
	}
	if ticket, prior, err := gate.Admit(t.Context(), from, o); err != nil || prior != nil || ticket == nil {
		t.Fatalf("the request was not admitted: %v, prior answer %v", err, prior != nil)
	}
}

func refusedBy(t *testing.T, err error, kind mesh.Kind, rule string) {
	t.Helper()
	if err == nil {
		t.Fatal("it was accepted")
	}
	if e := mesh.AsError(err); e.Kind != kind || e.Rule != rule {
		t.Errorf("refused as %s by %q (%v), want %s by %q", e.Kind, e.Rule, err, kind, rule)
	}
}

// Every way to forge a request is refused over the real network, each by its own
// rule, and nothing is run.
func TestForgery(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	bob, carol := m.Peer("bob"), m.Peer("carol")
	s, other := newSender(t, bob), testmesh.NewActor(t)
	used := s.deploy(t, "first")
	if _, err := s.send(t, s.Seal(t, used)); err != nil {
		t.Fatal(err)
	}
	edit := func(change func(*wire.Request)) []byte {
		r := s.deploy(t, "forged")
		change(&r)
		return s.Seal(t, r)
	}
	old, ahead := 5*time.Minute+time.Second, 6*time.Minute // one comes nearer while it waits for its turn
	shift := func(r *wire.Request, by time.Duration) {
		r.Issued += by.Milliseconds()
		r.Expires += by.Milliseconds()
	}
	good := s.Seal(t, s.deploy(t, "forged"))
	altered := func(at int) []byte {
		b := append([]byte(nil), good...)
		b[at] ^= 1
		return b
	}
	for _, c := range []struct {
		name string
		data []byte
		kind mesh.Kind
		rule string
	}{
		{"a bit of the payload flipped", altered(len(good) / 2), mesh.Forged, "wire.envelope"},
		{"a bit of the signature flipped", altered(len(good) - 1), mesh.Forged, "wire.envelope"},
		{"cut short", good[:len(good)-1], mesh.Forged, "wire.envelope"},
		{"a byte appended", append(append([]byte(nil), good...), 0), mesh.Forged, "wire.envelope"},
		{"empty", nil, mesh.Forged, "wire.envelope"},
		{"for another peer", edit(func(r *wire.Request) { r.To = carol.ID() }), mesh.Misdirected, "request.to"},
		{"for another incarnation", edit(func(r *wire.Request) { r.Incarnation[0] ^= 1 }), mesh.Misdirected, "request.incarnation"},
		{"5 min 1 s old", edit(func(r *wire.Request) { shift(r, -old) }), mesh.Stale, "time.window"},
		{"6 min ahead", edit(func(r *wire.Request) { shift(r, ahead) }), mesh.Stale, "time.window"},
		{"valid for too long", edit(func(r *wire.Request) { r.Expires += 1000 }), mesh.Stale, "time.window"},
		{"expired", edit(func(r *wire.Request) { r.Issued -= 3000; r.Expires = r.Issued + 1000 }), mesh.Stale, "time.window"},
		{"an invented challenge", edit(func(r *wire.Request) { r.Challenge = make([]byte, 16) }), mesh.Stale, "time.challenge"},
		{"in another's name", edit(func(r *wire.Request) { r.From = other.Key.ID }), mesh.Forged, "request.from"},
		{"signed by another", other.Seal(t, s.deploy(t, "forged")), mesh.Forged, "request.signer"},
		{"signed by another, in his name", other.Seal(t, edited(s.deploy(t, "forged"), func(r *wire.Request) { r.From = other.Key.ID })), mesh.Forged, "request.signer"},
		{"a nonce that was used", edit(func(r *wire.Request) { r.Nonce = used.Nonce }), mesh.Replayed, "request.nonce"},
		{"of another version", edit(func(r *wire.Request) { r.Version = 2 }), mesh.Unsupported, "wire.version"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := s.send(t, c.data)
			refusedBy(t, err, c.kind, c.rule)
		})
	}
	if list := ps(t, bob); len(list) != 1 || list[0].Name != "first" {
		t.Errorf("bob runs %+v", list)
	}
	if _, err := s.send(t, good); err != nil {
		t.Errorf("the request as it was signed: %v", err)
	}
}

func edited(r wire.Request, change func(*wire.Request)) wire.Request {
	change(&r)
	return r
}

// A node whose clock is wrong is not locked out: it signs the other side's challenge.
func TestWrongClock(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	bob := m.Peer("bob")
	s := newSender(t, bob)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	h, err := s.Hello(ctx, bob.ID())
	if err != nil {
		t.Fatal(err)
	}
	r := s.deploy(t, "late")
	r.Issued -= time.Hour.Milliseconds()
	r.Expires -= time.Hour.Milliseconds()
	r.Challenge = h.Challenge
	data := s.Seal(t, r)
	first, err := s.send(t, data)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.send(t, data); err != nil || again.Workload != first.Workload {
		t.Errorf("repeated: %+v, %v", again, err)
	}
	r.Nonce = wire.NewNonce()
	_, err = s.send(t, s.Seal(t, r)) // a challenge holds once
	refusedBy(t, err, mesh.Stale, "time.challenge")
}
