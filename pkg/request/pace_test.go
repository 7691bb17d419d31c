package request

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

func TestPace(t *testing.T) {
	var c pace
	now := time.Unix(1_000, 0)
	turn := func(p mesh.PeerID, want time.Duration, heard bool) {
		t.Helper()
		if wait, ok := c.turn(p, now); wait != want || ok != heard {
			t.Errorf("%s waits %s, heard %t; want %s, %t", p, wait, ok, want, heard)
		}
	}
	for range refusedAtOnce {
		turn("a", 0, true)
		c.refused("a", now)
	}
	turn("a", 0, true)
	c.refused("a", now)
	turn("a", refusedEach, true)
	c.refused("a", now) // which its turn has counted already
	turn("a", 2*refusedEach, true)
	turn("b", 0, true)
	for range int(maxTurn/refusedEach) - 2 {
		if _, ok := c.turn("a", now); !ok {
			t.Fatal("not heard although it would wait for less than the limit")
		}
	}
	turn("a", 0, false)
	now = now.Add(time.Minute)
	turn("a", 0, true)
	if c.refused("b", now); len(c.due) != 1 {
		t.Errorf("%d peers are remembered, want the one that was just refused", len(c.due))
	}
}

// A peer that asks too often is heard more slowly, another as ever, and itself once it
// has waited.
func TestRefusedAreHeardSlowly(t *testing.T) {
	var ran atomic.Int32
	server, client := pair(t, map[wire.Verb]Handler{wire.VerbDeploy: counting(&ran)})
	q := trust.DefaultQuota()
	q.Requests = 1
	if err := server.trust.Put(context.Background(), trust.Grant{Peer: client.key.ID, Name: "client", Allow: trust.Deploy, Quota: q}); err != nil {
		t.Fatal(err)
	}
	ask := func() error {
		return client.client.Do(t.Context(), server.key.ID, wire.VerbDeploy, wire.Deploy{}, nil)
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	const more = 3
	began := time.Now()
	for range refusedAtOnce + 1 + more {
		if err := ask(); mesh.AsError(err).Rule != "grant.requests" {
			t.Fatalf("got %v, want grant.requests", err)
		}
	}
	if took := time.Since(began); took < (more-1)*refusedEach {
		t.Errorf("%d refusals took %s", refusedAtOnce+1+more, took)
	}
	if ran.Load() != 1 {
		t.Errorf("%d ran", ran.Load())
	}
}
