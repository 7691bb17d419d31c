package node

import (
	"cmp"
	"context"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/driver"
	"peercompute/pkg/fuel"
	"peercompute/pkg/mesh"
	"peercompute/pkg/receipt"
	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

// This file issues receipts for what ran here, and shows those that are kept.

// issue signs the receipt of a run that has ended here.
func (n *Node) issue(t task, r driver.Ran, out, log *receipt.Tally, started time.Time) (receipt.Record, error) {
	module, err := wire.ParseDigest(t.w.Spec.Digest)
	if err != nil {
		return receipt.Record{}, err
	}
	input, err := wire.ParseDigest(r.Input)
	if err != nil {
		return receipt.Record{}, err
	}
	spec, err := wire.SpecDigest(t.w.Spec)
	if err != nil {
		return receipt.Record{}, err
	}
	ended := n.m.Now()
	if ended.Before(started) { // the clock was set back
		ended = started
	}
	signed := wire.Receipt{
		Version: wire.Version, Runner: n.m.Key.ID, Asker: t.w.Owner, Request: t.request, Job: t.w.ID,
		Module: module, Spec: spec, Seed: wire.Digest(t.job.Seed),
		Input: input, InputSize: uint64(r.InputSize), Whole: t.job.Whole,
		Output: out.Digest(), OutputSize: out.Size(), Log: log.Digest(), LogSize: log.Size(),
		Record: receipt.DigestOf(r.Record), RecordSize: uint64(len(r.Record)), Cut: r.Cut, Repeat: t.job.Replay != nil,
		Code: r.Code, Kind: r.Kind, Reason: r.Reason,
		Fuel: r.Fuel, Schedule: fuel.Schedule, PeakMemory: uint64(max(0, r.PeakMemory)), Caps: driver.Capabilities(t.w.Spec),
		Started: started.UnixMilli(), Ended: ended.UnixMilli(),
	}
	envelope, err := wire.SealReceipt(n.m.Key.Private, signed)
	if err != nil {
		return receipt.Record{}, err
	}
	rec := receipt.Record{Role: receipt.Ran, Envelope: envelope, Added: ended.UTC(), Signed: &signed}
	if t.w.Owner == n.m.Key.ID {
		rec.Role, rec.Spec = receipt.Own, &t.w.Spec
	}
	return rec, nil
}

// showReceipt is a receipt as the local person sees it.
func (n *Node) showReceipt(rec receipt.Record, r *wire.Receipt, full bool) control.Receipt {
	out := control.Receipt{
		ID: r.Job, Role: string(rec.Role), Peer: n.m.Trust.Name(r.Runner), PeerID: r.Runner, Asker: n.m.Trust.Name(r.Asker), AskerID: r.Asker,
		Request: r.Request.String(), Module: r.Module.String(), Spec: r.Spec.String(), Seed: hex.EncodeToString(r.Seed[:]),
		Input: r.Input.String(), InputSize: r.InputSize, Whole: r.Whole, Output: r.Output.String(), OutputSize: r.OutputSize,
		Log: r.Log.String(), LogSize: r.LogSize, Record: r.Record.String(), RecordSize: r.RecordSize, Cut: r.Cut, Repeat: r.Repeat,
		Exit: r.Code, Reason: r.Reason, Fuel: r.Fuel, Schedule: r.Schedule, PeakMemory: r.PeakMemory, Capabilities: r.Caps,
		Started: time.UnixMilli(r.Started).UTC(), Ended: time.UnixMilli(r.Ended).UTC(), Flaw: rec.Flaw,
	}
	if out.Capabilities == nil {
		out.Capabilities = []string{}
	}
	if r.Kind != mesh.Internal {
		out.Kind = r.Kind.String()
	}
	for _, v := range rec.Verified {
		out.Verified = append(out.Verified, control.Verification{
			By: n.m.Trust.Name(v.By), At: v.At, Receipt: v.Receipt, Agrees: len(v.Differs) == 0, Differs: v.Differs,
		})
	}
	if full {
		out.Envelope = rec.Envelope
	}
	return out
}

// Receipts lists the receipts that are kept, the newest first.
func (a *api) Receipts(_ context.Context, q control.ReceiptQuery) ([]control.Receipt, error) {
	var only mesh.PeerID
	if q.Peer != "" {
		p, err := a.where(q.Peer)
		if err != nil {
			return nil, err
		}
		only = p
	}
	type line struct {
		at time.Time
		r  control.Receipt
	}
	var found []line
	err := a.n.m.Store.View(func(tx *store.Tx) error {
		return receipt.Each(tx, func(rec receipt.Record, r *wire.Receipt) error {
			if only == "" || r.Runner == only || r.Asker == only {
				found = append(found, line{rec.Added, a.n.showReceipt(rec, r, false)})
			}
			return nil
		})
	})
	slices.SortFunc(found, func(x, y line) int {
		return cmp.Or(y.at.Compare(x.at), strings.Compare(string(x.r.ID), string(y.r.ID)))
	})
	if q.Limit > 0 && len(found) > q.Limit {
		found = found[:q.Limit]
	}
	out := []control.Receipt{}
	for _, f := range found {
		out = append(out, f.r)
	}
	return out, err
}

// findReceipt resolves an ID or a unique prefix of one.
func (n *Node) findReceipt(ref string) (rec receipt.Record, r *wire.Receipt, err error) {
	err = n.m.Store.View(func(tx *store.Tx) error {
		var ids []mesh.WorkloadID
		err := tx.Each(store.Receipts, []byte(ref), func(k, _ []byte) (bool, error) {
			if ref == "" || !strings.HasPrefix(string(k), ref) {
				return false, nil
			}
			ids = append(ids, mesh.WorkloadID(k))
			return len(ids) < 2, nil
		})
		switch {
		case err != nil:
			return err
		case len(ids) == 0:
			rec, r, err = receipt.Find(tx, mesh.WorkloadID(ref))
			return err
		case len(ids) > 1:
			return mesh.Errorf(mesh.Conflict, "several receipts begin with %q", ref).WithHint("give more of the ID")
		}
		rec, r, err = receipt.Find(tx, ids[0])
		return err
	})
	return rec, r, err
}

func (a *api) Receipt(_ context.Context, id string) (control.Receipt, error) {
	rec, r, err := a.n.findReceipt(id)
	if err != nil {
		return control.Receipt{}, err
	}
	return a.n.showReceipt(rec, r, true), nil
}

// CheckReceipt verifies a receipt from anywhere. What this node knows of the same
// run besides is held against it.
func (a *api) CheckReceipt(_ context.Context, f control.ReceiptFile) (control.Receipt, error) {
	if f.Format != control.ReceiptFormat {
		return control.Receipt{}, mesh.Errorf(mesh.Unsupported, "the file's format is %q, not %s", f.Format, control.ReceiptFormat).
			WithHint("make one with: peerctl receipts export ID")
	}
	r, err := wire.OpenReceipt(f.Envelope)
	if err != nil {
		return control.Receipt{}, err
	}
	rec := receipt.Record{Envelope: f.Envelope}
	if kept, _, err := a.n.findReceipt(string(r.Job)); err == nil {
		if string(kept.Envelope) != string(f.Envelope) {
			kept = receipt.Record{Envelope: f.Envelope, Flaw: "another receipt of the same run is kept here"}
		}
		rec = kept
	} else if mesh.KindOf(err) != mesh.NotFound {
		return control.Receipt{}, err
	}
	return a.n.showReceipt(rec, r, true), nil
}
