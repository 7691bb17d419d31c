package security

import (
	"context"
	"crypto/sha256"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"peercompute/pkg/mesh"
	"peercompute/pkg/wire"
	"peercompute/test/internal/testmesh"
)

// What one sending of a request came to.
type sending struct {
	execution string // the execution that the answer tells of
	void      bool   // it was recorded before a crash, and nothing was done
	stale     bool   // refused by the clock
}

// atMostOnce is the promise, for one request: it is carried out once and all answers
// tell of that execution; or it is void and never will be. What is refused by the
// clock changes nothing.
var atMostOnce = porcupine.Model{
	Partition: func(all []porcupine.Operation) [][]porcupine.Operation {
		by := map[any][]porcupine.Operation{}
		for _, o := range all {
			by[o.Input] = append(by[o.Input], o)
		}
		var out [][]porcupine.Operation
		for _, part := range by {
			out = append(out, part)
		}
		return out
	},
	Init: func() any { return sending{} },
	Step: func(state, _, output any) (bool, any) {
		was, now := state.(sending), output.(sending)
		switch {
		case now.stale:
			return true, was
		case was == sending{}:
			return true, now
		}
		return was == now, was
	},
}

func TestModelOfAtMostOnce(t *testing.T) {
	op := func(at int64, s sending) porcupine.Operation {
		return porcupine.Operation{Input: 1, Output: s, Call: at, Return: at + 15}
	}
	a, b, void, stale := sending{execution: "a"}, sending{execution: "b"}, sending{void: true}, sending{stale: true}
	for name, c := range map[string]struct {
		history []sending
		good    bool
	}{
		"once":                             {[]sending{a, a, stale, a}, true},
		"void":                             {[]sending{void, stale, void}, true},
		"twice":                            {[]sending{a, b}, false},
		"carried out after it was void":    {[]sending{void, a}, false},
		"void after it was carried out":    {[]sending{a, stale, void}, false},
		"twice, with the clock in between": {[]sending{a, stale, b}, false},
	} {
		var h []porcupine.Operation
		for i, s := range c.history {
			h = append(h, op(int64(20*i), s))
		}
		if porcupine.CheckOperations(atMostOnce, h) != c.good {
			t.Errorf("%s: the model says %t", name, !c.good)
		}
	}
}

// Clients send old and new requests at the same time while the node is killed, comes
// back, and has its clock moved by minutes and days. Their histories are those of a
// node that carries out each request at most once, and so is its disk.
func TestHistoriesAreLinearizable(t *testing.T) {
	t.Parallel()
	const clients = 6
	var actors []*testmesh.Actor
	var ids []mesh.PeerID
	for range clients {
		a := testmesh.NewActor(t)
		actors, ids = append(actors, a), append(ids, a.Key.ID)
	}
	n := newNode(t, ids...)
	type asked struct {
		by     int
		data   []byte
		digest wire.Digest
	}
	var mu sync.Mutex
	var all []asked
	var history []porcupine.Operation
	var lost, stale int
	start := time.Now()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for by, a := range actors {
		a.Learn(t, n.addr())
		wg.Go(func() {
			for step := 0; ; step++ {
				select {
				case <-stop:
					return
				default:
				}
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				mu.Lock()
				var mine []asked
				for _, q := range all {
					if q.by == by {
						mine = append(mine, q)
					}
				}
				mu.Unlock()
				var q asked
				if len(mine) == 0 || rand.IntN(3) == 0 { // a new one, by the node's own clock or its challenge
					h, err := a.Hello(ctx, n.key.ID)
					if err != nil {
						cancel()
						time.Sleep(20 * time.Millisecond) // it is dead
						continue
					}
					r := a.Request(t, n.key.ID, h.Incarnation, wire.VerbDeploy, bodies()[wire.VerbDeploy])
					r.Issued = h.Time
					r.Expires = h.Time + wire.Lifetime.Milliseconds()
					if rand.IntN(4) == 0 {
						r.Challenge = h.Challenge
					}
					data := a.Seal(t, r)
					q = asked{by, data, sha256.Sum256(data)}
					mu.Lock()
					all = append(all, q)
					mu.Unlock()
				} else {
					q = mine[max(0, len(mine)-1-rand.IntN(min(len(mine), 12)))]
				}
				call := time.Since(start)
				var ok wire.Accepted
				st, err := a.Requests.Send(ctx, n.key.ID, wire.VerbDeploy, q.data, &ok)
				back := time.Since(start)
				if err == nil {
					st.Reset()
				}
				cancel()
				out := sending{execution: string(ok.Workload)}
				switch mesh.KindOf(err) {
				case mesh.None:
				case mesh.Interrupted:
					out = sending{void: true}
				case mesh.Stale:
					out = sending{stale: true}
				case mesh.Unavailable, mesh.Timeout: // no answer: it may have been carried out or not
					mu.Lock()
					lost++
					mu.Unlock()
					time.Sleep(20 * time.Millisecond)
					continue
				default:
					t.Errorf("refused: %v", err)
					return
				}
				mu.Lock()
				if out.stale {
					stale++
				}
				history = append(history, porcupine.Operation{ClientId: by, Input: q.digest, Call: int64(call), Output: out, Return: int64(back)})
				mu.Unlock()
			}
		})
	}
	said := func() int { mu.Lock(); defer mu.Unlock(); return len(history) }
	moves := []time.Duration{0, 10 * time.Minute, -10 * time.Minute, 24 * time.Hour, -24 * time.Hour}
	kills := scale(12)
	for i := range kills {
		want := said() + 20 // between two kills something is said
		for end := time.Now().Add(time.Minute); said() < want && time.Now().Before(end); time.Sleep(time.Millisecond) {
		}
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
		if i%2 == 0 {
			n.move(moves[rand.IntN(len(moves))])
		}
		n.kill()
		if i%3 == 0 { // the clock moves while it is away
			n.off = moves[rand.IntN(len(moves))]
		}
		n.start()
	}
	want := said() + 50
	for end := time.Now().Add(time.Minute); said() < want && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	close(stop)
	wg.Wait()
	n.kill()

	if r := porcupine.CheckOperationsTimeout(atMostOnce, history, time.Minute); r != porcupine.Ok {
		t.Errorf("the histories are not those of a node that carries out each request at most once: %v", r)
	}
	disk := n.executed()
	answered, void := 0, 0
	for _, o := range history {
		did, out := disk[o.Input.(wire.Digest)], o.Output.(sending)
		if out.execution != "" && !slices.Equal(did, []string{out.execution}) || out.void && len(did) > 0 {
			t.Errorf("the answer was %+v, and the disk has the executions %v", out, did)
		}
		if out.void {
			void++
		}
		if out.execution != "" {
			answered++
		}
	}
	for d, did := range disk {
		if len(did) > 1 {
			t.Errorf("request %x was carried out %d times", d, len(did))
		}
	}
	t.Logf("%d requests, %d answers, %d void, %d stale, %d without answer, in %d kills: at most one execution each", len(all), answered, void, stale, lost, kills)
	if answered < 10*kills || lost == 0 {
		t.Error("too little happened to prove anything")
	}
}
