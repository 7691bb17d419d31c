package node

import (
	"context"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/driver"
	"peercompute/pkg/identity"
	"peercompute/pkg/jobs"
	"peercompute/pkg/mesh"
	"peercompute/pkg/receipt"
	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

// queuedAt is a job that n queued at runner, which is done by now, and what that says of it.
func queuedAt(t *testing.T, n *Node, runner *identity.Key, request byte, seed driver.Seed) (asked, wire.JobView) {
	t.Helper()
	spec := jobSpec(mesh.Spec{Name: "job", Digest: "sha256:" + strings.Repeat("ab", 32)})
	sum, err := wire.SpecDigest(spec)
	if err != nil {
		t.Fatal(err)
	}
	module, err := wire.ParseDigest(spec.Digest)
	if err != nil {
		t.Fatal(err)
	}
	by := wire.Digest{request}
	r := wire.Receipt{
		Version: wire.Version, Runner: runner.ID, Asker: n.m.Key.ID, Request: by, Job: mesh.NewWorkloadID(by), Module: module, Spec: sum, Seed: wire.Digest(seed),
		Whole: true, Input: receipt.DigestOf(nil), Fuel: 7,
	}
	envelope, err := wire.SealReceipt(runner.Private, r)
	if err != nil {
		t.Fatal(err)
	}
	v := wire.JobView{ID: r.Job, Request: by, State: string(jobs.Done), Exit: &mesh.Exit{Fuel: 7}, Receipt: envelope}
	return asked{Peer: runner.ID, Spec: spec, Seed: seed, Added: time.Now(), View: wire.JobView{ID: r.Job, Request: by}}, v
}

// Learned twice, and the second time when its receipt is not kept any more, a job counts once.
func TestAJobIsSettledOnce(t *testing.T) {
	n, runner := withLedger(t), newKey(t)
	k, v := queuedAt(t, n, runner, 1, driver.Seed{1})
	if err := n.change(t, func(tx *store.Tx) error { return putAsked(tx, k) }); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got, err := n.learn(context.Background(), k, v); err != nil || !got.Settled {
			t.Fatalf("%+v, %v", got, err)
		}
		if err := n.change(t, func(tx *store.Tx) error { return tx.Delete(store.Receipts, []byte(v.ID)) }); err != nil {
			t.Fatal(err)
		}
	}
	err := n.m.Store.View(func(tx *store.Tx) error {
		a, err := receipt.Get(tx, runner.ID)
		if a.Theirs != (receipt.Sum{Jobs: 1, Fuel: 7}) {
			t.Errorf("its account: %+v", a.Theirs)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A key finds a job that was queued before, of which this node lost track. Its receipt states
// the seed of then, and that is no lie.
func TestAKeyFindsAnEarlierJob(t *testing.T) {
	n, runner := withLedger(t), newKey(t)
	then, v := queuedAt(t, n, runner, 1, driver.Seed{1})
	now := wire.Digest{2}
	again := asked{Peer: runner.ID, Spec: then.Spec, Seed: driver.Seed{2}, View: wire.JobView{ID: v.ID, Request: v.Request}}
	if !again.accepted(now, "key") {
		t.Fatal("the earlier job is not taken")
	}
	rec, err := n.judge(again, v)
	if err != nil || rec.Flaw != "" {
		t.Errorf("a true receipt: %q, %v", rec.Flaw, err)
	}
	fresh := asked{Seed: driver.Seed{2}, View: wire.JobView{ID: mesh.NewWorkloadID(now), Request: now}}
	if !fresh.accepted(now, "key") || fresh.Seed != (driver.Seed{2}) {
		t.Errorf("a new job by a key: %+v", fresh)
	}
	for name, lie := range map[string]asked{
		"another request, without a key": {View: wire.JobView{ID: v.ID, Request: v.Request}},
		"an ID of another request":       {View: wire.JobView{ID: v.ID, Request: now}},
	} {
		if lie.accepted(now, "") {
			t.Errorf("%s is taken", name)
		}
	}
	if forged := (asked{View: wire.JobView{ID: "aaaaaaaaaaaaaaaa", Request: v.Request}}); forged.accepted(now, "key") {
		t.Error("by a key any ID is taken")
	}
}

// Who asks first and goes away says nothing of a runtime to those who ask next.
func TestReadinessIsNobodysOwn(t *testing.T) {
	n := &Node{ready: map[mesh.Runtime]readiness{}}
	n.cfg.Runtimes = map[mesh.Runtime]Runtime{mesh.Container: {Ready: func(ctx context.Context) (string, error) { return "1.0", ctx.Err() }}}
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	n.runtimes(gone)
	if got := n.runtimes(context.Background()); len(got) != 1 || !got[0].Ready {
		t.Errorf("%+v", got)
	}
}
