package node

import (
	"bytes"
	"context"
	"io"

	"peercompute/pkg/control"
	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
	"peercompute/pkg/receipt"
	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

// This file repeats runs elsewhere, to see whether their receipts are true.

// Verify repeats the run of a receipt and compares what comes of it.
func (a *api) Verify(ctx context.Context, v control.Verify) (control.VerifyResult, error) {
	n := a.n
	rec, r, err := n.findReceipt(v.Receipt)
	if err != nil {
		return control.VerifyResult{}, err
	}
	if rec.Spec == nil {
		return control.VerifyResult{}, mesh.Errorf(mesh.Invalid, "the run %s was asked for by %s, who alone knows its arguments and input", r.Job, n.m.Trust.Name(r.Asker)).
			WithHint("its asker can verify it")
	}
	if err := receipt.Repeatable(r); err != nil {
		return control.VerifyResult{}, err
	}
	p, err := a.where(v.By)
	if err != nil {
		return control.VerifyResult{}, err
	}
	input, err := n.inputOf(r, v.Input)
	if err != nil {
		return control.VerifyResult{}, err
	}
	job := ask{spec: *rec.Spec, seed: driver.Seed(r.Seed), whole: r.Whole}
	if !r.Whole || r.RecordSize > 0 {
		record, err := n.recordOf(r)
		if err != nil {
			return control.VerifyResult{}, err
		}
		job.replay = &driver.Replayed{Record: record}
	}
	got, err := n.runOn(ctx, p, job, func(mesh.PeerID, mesh.WorkloadID) (io.Reader, io.Writer, io.Writer, error) {
		return bytes.NewReader(input), io.Discard, io.Discard, nil
	})
	if err != nil {
		return control.VerifyResult{}, err
	}
	again, err := got.rec.Open()
	if err != nil {
		return control.VerifyResult{}, err
	}
	found := receipt.Verification{By: p, At: n.m.Now().UTC(), Receipt: again.Job, Differs: receipt.Differences(r, again)}
	if err := n.m.Store.Update(ctx, func(tx *store.Tx) error { return receipt.Verified(tx, r.Job, found) }); err != nil {
		return control.VerifyResult{}, err
	}
	return control.VerifyResult{
		Receipt: n.showReceipt(rec, r, false), Again: n.showReceipt(got.rec, again, false),
		Agrees: len(found.Differs) == 0, Differs: found.Differs,
	}, nil
}

// inputOf is what the program of a receipt read: from what is kept, or from an input
// that begins with it.
func (n *Node) inputOf(r *wire.Receipt, given string) ([]byte, error) {
	if r.InputSize == 0 {
		return nil, nil
	}
	from := given
	if from == "" {
		from = r.Input.String()
	}
	f, err := n.inputs.Open(from)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(min(r.InputSize, wire.MaxInput))))
	if err != nil {
		return nil, err
	}
	if receipt.DigestOf(b) != r.Input {
		return nil, mesh.Errorf(mesh.Invalid, "that is not the input of the run: its digest is not %s", r.Input).WithHint("give the same file with --input FILE")
	}
	return b, nil
}

// recordOf is what the run of a receipt observed.
func (n *Node) recordOf(r *wire.Receipt) ([]byte, error) {
	if r.RecordSize == 0 {
		return nil, nil
	}
	f, err := n.inputs.Open(r.Record.String())
	if err != nil {
		return nil, mesh.Errorf(mesh.NotFound, "what the run observed is not kept any more, so it cannot be repeated exactly").Because(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, driver.MaxRecord+1))
	if err == nil && receipt.DigestOf(b) != r.Record {
		err = mesh.Errorf(mesh.Internal, "the kept record of the run is damaged")
	}
	return b, err
}
