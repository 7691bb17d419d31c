package node

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/blob"
	"peercompute/pkg/identity"
	"peercompute/pkg/member"
	"peercompute/pkg/mesh"
	"peercompute/pkg/receipt"
	"peercompute/pkg/store"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

func newKey(t *testing.T) *identity.Key {
	t.Helper()
	k, err := identity.Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// withLedger is a node that is nothing but its key, its peers, its receipts and the inputs it keeps.
func withLedger(t *testing.T) *Node {
	t.Helper()
	dir, me := t.TempDir(), newKey(t)
	st, err := store.Open(filepath.Join(dir, store.FileName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	list, err := trust.Open(st, me.ID, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	inputs, err := blob.Open(blob.Config{Dir: filepath.Join(dir, "inputs"), Noun: "input", Ext: ".in", One: 1 << 20, Max: 1 << 20, Loose: true})
	if err != nil {
		t.Fatal(err)
	}
	return &Node{m: &member.Member{Config: member.Config{Home: dir, Now: time.Now}, Key: me, Store: st, Trust: list}, inputs: inputs, log: slog.New(slog.DiscardHandler)}
}

// Whoever asked for a run takes its result only with a receipt that fits what was
// sent and received. One that does not fit is kept as evidence.
func TestLyingReceiptIsEvidence(t *testing.T) {
	n := withLedger(t)
	me, st, runner, other := n.m.Key, n.m.Store, newKey(t), newKey(t)
	job := ask{spec: jobSpec(mesh.Spec{Name: "job", Digest: "sha256:" + strings.Repeat("ab", 32)})}
	spec, err := wire.SpecDigest(job.spec)
	if err != nil {
		t.Fatal(err)
	}
	module, err := wire.ParseDigest(job.spec.Digest)
	if err != nil {
		t.Fatal(err)
	}
	// settle is the end of a run that was sent "in" and gave "out", whose runner
	// states r or what lie makes of it.
	settle := func(request byte, sealed *identity.Key, lie func(*wire.Receipt)) (mesh.WorkloadID, error) {
		got := receipt.Received{
			Runner: runner.ID, Asker: me.ID, Request: wire.Digest{request}, Output: receipt.NewTally(), Log: receipt.NewTally(), Done: true,
		}
		_, _ = got.Output.Write([]byte("out"))
		kept := n.keep()
		defer kept.discard()
		_, _ = kept.Write([]byte("in"))
		r := wire.Receipt{
			Version: wire.Version, Runner: runner.ID, Asker: me.ID, Request: got.Request, Job: mesh.NewWorkloadID(got.Request), Module: module, Spec: spec,
			Input: receipt.DigestOf([]byte("in")), InputSize: 2, Output: got.Output.Digest(), OutputSize: 3, Log: got.Log.Digest(), Record: receipt.DigestOf(nil),
		}
		if lie != nil {
			lie(&r)
		}
		var envelope []byte
		if sealed != nil {
			var err error
			if envelope, err = wire.SealReceipt(sealed.Private, r); err != nil {
				t.Fatal(err)
			}
		}
		id := mesh.NewWorkloadID(got.Request)
		_, err := n.settleRun(context.Background(), result{id: id, peer: runner.ID}, job, got, kept, envelope)
		return id, err
	}
	flaw := func(id mesh.WorkloadID) (what string, kept bool) {
		_ = st.View(func(tx *store.Tx) error {
			rec, _, err := receipt.Find(tx, id)
			what, kept = rec.Flaw, err == nil
			return err
		})
		return what, kept
	}

	id, err := settle(1, runner, nil)
	if err != nil {
		t.Fatal(err)
	}
	if what, kept := flaw(id); !kept || what != "" {
		t.Errorf("a true receipt: kept %t, flaw %q", kept, what)
	}
	id, err = settle(2, runner, func(r *wire.Receipt) { r.Output = receipt.DigestOf([]byte("another")) })
	if e := mesh.AsError(err); e == nil || e.Rule != "receipt.fits" || e.Kind != mesh.Forged {
		t.Errorf("a receipt for another output: %v", err)
	}
	if what, kept := flaw(id); !kept || what == "" {
		t.Errorf("the false receipt: kept %t, flaw %q", kept, what)
	}
	if id, err = settle(3, other, nil); mesh.AsError(err) == nil || mesh.AsError(err).Rule != "receipt.signature" {
		t.Errorf("a receipt signed by somebody else: %v", err)
	}
	if _, kept := flaw(id); kept {
		t.Error("it is kept as the runner's")
	}
	if _, err = settle(4, nil, nil); mesh.AsError(err) == nil || mesh.AsError(err).Rule != "receipt.missing" {
		t.Errorf("no receipt: %v", err)
	}
}
