package testmesh

import (
	"context"
	"encoding/binary"
	"io"
	"testing"
	"time"

	"peercompute/pkg/identity"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/request"
	"peercompute/pkg/wire"
)

// Actor is a peer made of our own parts inside the test, which can send what no
// peerd would: old requests, altered ones, the same one twice.
type Actor struct {
	Key      *identity.Key
	Net      *peernet.Net
	Requests *request.Client
}

type everyone struct{}

func (everyone) Allowed(mesh.PeerID) bool { return true }

// NewActor makes a peer with a key of its own that knows the addresses given.
// Nobody trusts it yet.
func NewActor(t testing.TB, addrs ...string) *Actor {
	t.Helper()
	key, err := identity.Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return actor(t, key, addrs)
}

func actor(t testing.TB, key *identity.Key, addrs []string) *Actor {
	t.Helper()
	n, err := peernet.New(peernet.Config{Key: key.Private, Gate: everyone{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	for _, s := range addrs {
		addr, id, err := peernet.ParseAddr(s)
		if err != nil {
			t.Fatal(err)
		}
		n.Learn(id, []string{addr})
	}
	return &Actor{Key: key, Net: n, Requests: request.NewClient(key, n, time.Now)}
}

// Hello asks p for its incarnation and clock, as every client does first.
func (a *Actor) Hello(ctx context.Context, p mesh.PeerID) (*wire.Hello, error) {
	st, err := a.Net.Open(ctx, p, wire.ProtocolHello)
	if err != nil {
		return nil, err
	}
	defer st.Reset()
	defer context.AfterFunc(ctx, st.Reset)()
	nonce := wire.NewNonce()
	if _, err := st.Write(nonce[:]); err != nil {
		return nil, err
	}
	var size [4]byte
	if _, err := io.ReadFull(st, size[:]); err != nil {
		return nil, err
	}
	data := make([]byte, min(binary.BigEndian.Uint32(size[:]), wire.MaxHello))
	if _, err := io.ReadFull(st, data); err != nil {
		return nil, err
	}
	return wire.OpenHello(data, p, a.Key.ID, nonce)
}

// Request is a request as this actor would make it now; change it and Seal it.
func (a *Actor) Request(t testing.TB, to mesh.PeerID, inc wire.Incarnation, verb wire.Verb, body any) wire.Request {
	t.Helper()
	raw, err := wire.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	return wire.Request{
		Version: wire.Version, Verb: verb, From: a.Key.ID, To: to, Incarnation: inc, Nonce: wire.NewNonce(),
		Issued: now.UnixMilli(), Expires: now.Add(wire.Lifetime).UnixMilli(), Body: raw,
	}
}

// Seal signs a request with this actor's key.
func (a *Actor) Seal(t testing.TB, r wire.Request) []byte {
	t.Helper()
	data, err := wire.SealRequest(a.Key.Private, r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Learn tells the actor another address.
func (a *Actor) Learn(t testing.TB, full string) {
	t.Helper()
	addr, id, err := peernet.ParseAddr(full)
	if err != nil {
		t.Fatal(err)
	}
	a.Net.Learn(id, []string{addr})
}

// Steal is an actor with the key of a node: what a thief of it could do.
func Steal(t testing.TB, from *Node, addrs ...string) *Actor {
	t.Helper()
	key, err := identity.Load(from.Home)
	if err != nil {
		t.Fatal(err)
	}
	return actor(t, key, addrs)
}

// Rotate tells p that a new key takes the place of the actor's.
func (a *Actor) Rotate(t testing.TB, p mesh.PeerID, overlap time.Duration) error {
	t.Helper()
	next, err := identity.Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	step, err := wire.SealRotation(a.Key.Private, next.Private, wire.Rotation{
		Version: wire.Version, Old: a.Key.ID, New: next.ID, Seq: 1, Time: time.Now().UnixMilli(), Overlap: overlap.Milliseconds(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return a.Requests.Do(ctx, p, wire.VerbRotate, wire.Lineage{Steps: []wire.Step{step}}, nil)
}
