package node

import (
	"bytes"
	"context"
	"io"

	"peercompute/pkg/control"
	"peercompute/pkg/jobs"
	"peercompute/pkg/mesh"
	"peercompute/pkg/receipt"
	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

// UploadInput keeps the input of a job that is to be queued.
func (a *api) UploadInput(ctx context.Context, r io.Reader) (control.Input, error) {
	digest, size, err := a.n.inputs.Put(ctx, r, "", a.n.cronInputs)
	if err == nil && size == 0 {
		return control.Input{}, nil
	}
	return control.Input{Digest: digest, Size: size}, err
}

// JobOutput gives what a job wrote, and how it ended if it has.
func (a *api) JobOutput(ctx context.Context, ref string, o control.JobOutput, start control.StartJob) (control.RunResult, error) {
	k, here, err := a.n.findJob(ref)
	if err != nil {
		return control.RunResult{}, err
	}
	in := wire.JobOutput{Job: k.View.ID, Follow: o.Follow, Quiet: o.Quiet}
	begin := func() (io.Writer, io.Writer, error) {
		_, stdout, stderr, err := start(control.Started{ID: k.View.ID, Peer: a.n.m.Trust.Name(k.Peer)})
		return stdout, stderr, err
	}
	if here {
		return a.n.outputHere(ctx, in, begin)
	}
	return a.n.outputThere(ctx, k, in, begin)
}

func (n *Node) outputHere(ctx context.Context, in wire.JobOutput, begin func() (io.Writer, io.Writer, error)) (control.RunResult, error) {
	v, err := n.viewJob(n.m.Key.ID, in.Job)
	if err != nil {
		return control.RunResult{}, err
	}
	if v.Dropped && !in.Quiet {
		_, err := n.queue.Outputs(ctx, in.Job, false) // says why
		return control.RunResult{}, err
	}
	stdout, stderr, err := begin()
	if err != nil {
		return control.RunResult{}, err
	}
	if _, err := n.jobOutput(ctx, in, stdout, stderr); err != nil {
		return control.RunResult{}, err
	}
	if v, err = n.viewJob(n.m.Key.ID, in.Job); err != nil {
		return control.RunResult{}, err
	}
	out := control.RunResult{ID: v.ID, Peer: n.m.Trust.Name(n.m.Key.ID), State: string(v.State)}
	if v.State != jobs.Done {
		return out, nil
	}
	out.Exit = v.Exit
	if len(v.Receipt) > 0 {
		rec, r, err := n.findReceipt(string(v.ID))
		if err == nil {
			shown := n.showReceipt(rec, r, true)
			out.Receipt = &shown
		} else if mesh.KindOf(err) != mesh.NotFound { // older than those that are kept
			return out, err
		}
	}
	return out, nil
}

// outputThere fetches what a job on another peer wrote, and holds its receipt against
// what comes.
func (n *Node) outputThere(ctx context.Context, k asked, in wire.JobOutput, begin func() (io.Writer, io.Writer, error)) (control.RunResult, error) {
	out := control.RunResult{ID: in.Job, Peer: n.m.Trust.Name(k.Peer)}
	s, err := n.m.Client.Open(ctx, k.Peer, wire.VerbJobOutput, in, nil)
	if err != nil {
		return out, n.elsewhere(k.Peer, err)
	}
	defer s.Reset()
	defer context.AfterFunc(ctx, s.Reset)()
	stdout, stderr, err := begin()
	if err != nil {
		return out, err
	}
	got := receipt.Received{Output: receipt.NewTally(), Log: receipt.NewTally()}
	envelope, err := n.collect(ctx, s, &got, stdout, stderr)
	if err != nil {
		return out, n.elsewhere(k.Peer, err)
	}
	if !got.Done {
		out.State = string(jobs.Running)
		if now, err := n.refresh(ctx, k); err == nil {
			out.State = now.View.State
		}
		return out, nil
	}
	out.State, out.Exit = string(jobs.Done), got.Exit
	now, err := n.refresh(ctx, k)
	if err != nil {
		return out, err
	}
	if len(now.View.Receipt) == 0 {
		return out, nil // it never ran to an end
	}
	if !bytes.Equal(envelope, now.View.Receipt) {
		return out, mesh.Errorf(mesh.Forged, "%s sent two different receipts for the same job", out.Peer).WithRule("receipt.fits")
	}
	rec, err := n.judge(now, now.View)
	if err != nil {
		return out, err
	}
	r, err := wire.OpenReceipt(envelope)
	if err != nil {
		return out, err
	}
	if !in.Quiet && rec.Flaw == "" {
		if rec.Flaw = got.FlawInStreams(r); rec.Flaw != "" {
			if err := n.m.Store.Update(ctx, func(tx *store.Tx) error { return receipt.Dispute(tx, r.Job, n.m.Trust.Resolve(k.Peer), rec.Flaw) }); err != nil {
				return out, err
			}
		}
	}
	shown := n.showReceipt(rec, r, true)
	out.Receipt = &shown
	if rec.Flaw != "" {
		return out, mesh.Errorf(mesh.Forged, "%s's receipt does not fit the job: it states %s", out.Peer, rec.Flaw).WithRule("receipt.fits").
			WithHint("do not rely on the output; the receipt is kept as evidence: peerctl receipts show %s", out.ID)
	}
	if len(got.Record) > 0 {
		if _, _, err := n.inputs.Put(ctx, bytes.NewReader(got.Record), "", n.cronInputs); err != nil {
			n.log.Warn("cannot keep what a job observed", "job", out.ID, "err", err)
		}
	}
	return out, nil
}

// digestPrefix is the digest of the first size bytes of r.
func digestPrefix(r io.Reader, size uint64) (wire.Digest, bool) {
	t := receipt.NewTally()
	n, err := io.Copy(t, io.LimitReader(r, int64(size)))
	return t.Digest(), err == nil && uint64(n) == size
}
