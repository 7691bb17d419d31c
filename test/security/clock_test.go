package security

import (
	"context"
	"crypto/sha256"
	"testing"
	"time"

	"peercompute/pkg/wire"
	"peercompute/test/internal/testmesh"
)

// Whatever its clock does, a node carries out no request twice; and an honest peer
// gets through after one refusal at most, which is one round trip more (test plan,
// clock).
func TestMovedClocks(t *testing.T) {
	t.Parallel()
	a := testmesh.NewActor(t)
	n := newNode(t, a.Key.ID)
	a.Learn(t, n.addr())
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	honest := func(what string) {
		t.Helper()
		before := n.log.count("refused a request")
		if err := a.Requests.Do(ctx, n.key.ID, wire.VerbDeploy, bodies()[wire.VerbDeploy], nil); err != nil {
			t.Fatalf("%s: an honest peer is locked out: %v", what, err)
		}
		if got := n.log.count("refused a request") - before; got > 1 {
			t.Errorf("%s: an honest peer was refused %d times, want at most once", what, got)
		}
	}
	honest("at first")
	// A request of each moment, sent again at all later ones.
	var sent [][]byte
	again := func(what string) {
		t.Helper()
		for _, data := range sent {
			if st, err := a.Requests.Send(ctx, n.key.ID, wire.VerbDeploy, data, nil); err == nil {
				st.Reset() // the first answer: the disk will tell
			}
		}
		h, err := a.Hello(ctx, n.key.ID)
		if err != nil {
			t.Fatal(err)
		}
		r := a.Request(t, n.key.ID, h.Incarnation, wire.VerbDeploy, bodies()[wire.VerbDeploy])
		r.Issued, r.Expires = h.Time, h.Time+wire.Lifetime.Milliseconds()
		data := a.Seal(t, r)
		sent = append(sent, data)
		st, err := a.Requests.Send(ctx, n.key.ID, wire.VerbDeploy, data, nil)
		if err != nil {
			t.Fatalf("%s: by the node's own clock: %v", what, err)
		}
		st.Reset()
	}
	for _, off := range []time.Duration{10 * time.Minute, -10 * time.Minute, 24 * time.Hour, -24 * time.Hour, 0} {
		for _, restart := range []bool{false, true} {
			what := "the clock " + off.String() + " off"
			if restart {
				what += ", set while the node was away"
				n.kill()
				n.off = off
				n.start()
			} else {
				n.move(off)
			}
			honest(what)
			again(what)
		}
	}
	n.kill()
	disk := n.executed()
	for i, data := range sent {
		if got := len(disk[sha256.Sum256(data)]); got != 1 {
			t.Errorf("request %d was carried out %d times", i, got)
		}
	}
	t.Logf("%d requests at %d moments, each sent again at all later ones: one execution each", len(sent), len(sent))
}
