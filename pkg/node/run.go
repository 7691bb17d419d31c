package node

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"sync"

	"peercompute/pkg/blob"
	"peercompute/pkg/control"
	"peercompute/pkg/driver"
	"peercompute/pkg/frame"
	"peercompute/pkg/jobs"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/receipt"
	"peercompute/pkg/store"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// This file has jobs run for the local person: here or on a peer, whose receipt it
// holds against what came.

// ask is a run that the local person wants.
type ask struct {
	spec   mesh.Spec // jobSpec
	seed   driver.Seed
	whole  bool
	replay *driver.Replayed
}

// result is how it went.
type result struct {
	mesh.Exit
	id   mesh.WorkloadID
	peer mesh.PeerID
	rec  receipt.Record
}

// streams gives a run its ends, once it is accepted.
type streams func(mesh.PeerID, mesh.WorkloadID) (stdin io.Reader, stdout, stderr io.Writer, err error)

// Run runs a job here or on a peer.
func (a *api) Run(ctx context.Context, r control.Run, start control.StartJob) (control.RunResult, error) {
	job := ask{spec: jobSpec(r.Spec), seed: driver.Seed(randomDigest()), whole: r.Whole}
	if err := job.spec.Validate(); err != nil {
		return control.RunResult{}, err
	}
	begin := func(p mesh.PeerID, id mesh.WorkloadID) (io.Reader, io.Writer, io.Writer, error) {
		return start(control.Started{ID: id, Peer: a.n.m.Trust.Name(p)})
	}
	if r.Any {
		got, err := a.n.runAny(ctx, job, begin)
		return a.n.runResult(got), err
	}
	p, err := a.where(r.Peer)
	if err != nil {
		return control.RunResult{}, err
	}
	got, err := a.n.runOn(ctx, p, job, begin)
	return a.n.runResult(got), err
}

func (n *Node) runResult(got result) control.RunResult {
	out := control.RunResult{Exit: got.Exit, ID: got.id, State: string(jobs.Done), Peer: n.m.Trust.Name(got.peer)}
	if r, err := got.rec.Open(); err == nil {
		shown := n.showReceipt(got.rec, r, true)
		out.Receipt = &shown
	}
	return out
}

// runOn runs a job on p, which may be this machine.
func (n *Node) runOn(ctx context.Context, p mesh.PeerID, job ask, begin streams) (result, error) {
	if p == n.m.Key.ID {
		return n.runHere(ctx, job, begin)
	}
	var got result
	var end error
	err := n.withModule(ctx, p, job.spec.Digest, nil, func() error {
		begun := false
		got, end = n.runRemote(ctx, p, job, func(p mesh.PeerID, id mesh.WorkloadID) (io.Reader, io.Writer, io.Writer, error) {
			begun = true
			return begin(p, id)
		})
		if begun { // whatever it says now, it is not asked again
			return nil
		}
		return end
	})
	if err == nil {
		err = end
	}
	return got, err
}

func (n *Node) runHere(ctx context.Context, job ask, begin streams) (result, error) {
	request := randomDigest()
	w, commit, release, err := n.job(ctx, n.m.Key.ID, trust.Grant{}, request, job.spec, job.spec)
	if err != nil {
		return result{}, err
	}
	defer release()
	if err := n.m.Store.Update(ctx, commit); err != nil {
		return result{}, err
	}
	stdin, stdout, stderr, err := begin(w.Owner, w.ID)
	if err != nil {
		return result{}, err
	}
	kept := n.keep()
	defer kept.discard()
	got, err := n.attended(ctx, task{w, request, driver.Job{
		Stdin: io.TeeReader(stdin, kept), Stdout: stdout, Stderr: stderr, Seed: job.seed, Whole: job.whole, Replay: job.replay,
	}})
	if err != nil {
		return result{}, err
	}
	n.keepSeen(ctx, kept, uint64(got.InputSize), got.Record)
	return result{got.Exit, w.ID, w.Owner, receipt.Record{Role: receipt.Own, Envelope: got.receipt, Spec: &w.Spec}}, nil
}

// runRemote runs a job on another peer.
func (n *Node) runRemote(ctx context.Context, p mesh.PeerID, job ask, begin streams) (result, error) {
	body := wire.Run{Spec: job.spec, Seed: job.seed[:], Whole: job.whole, Repeat: job.replay != nil}
	var accepted wire.Accepted
	s, request, err := n.m.Client.OpenSigned(ctx, p, wire.VerbRun, body, &accepted)
	if err != nil {
		return result{}, n.elsewhere(p, err)
	}
	defer s.Reset()
	defer context.AfterFunc(ctx, s.Reset)()
	res := result{id: mesh.NewWorkloadID(request), peer: p}
	stdin, stdout, stderr, err := begin(p, res.id)
	if err != nil {
		return res, err
	}
	if job.replay != nil {
		if err := writeRecord(deadlineWriter{s}, job.replay.Record); err != nil {
			return res, n.elsewhere(p, mesh.Errorf(mesh.Unavailable, "the connection was lost").Because(err))
		}
	}
	kept := n.keep()
	defer kept.discard()
	go func() { // ends with the stream or the input
		_ = frame.Copy(deadlineWriter{s}, wire.FrameStdin, io.TeeReader(stdin, kept))
	}()
	seed := wire.Digest(job.seed)
	got := receipt.Received{
		Runner: p, Asker: n.m.Key.ID, Request: request, Seed: &seed, Whole: job.whole, Repeat: job.replay != nil,
		Output: receipt.NewTally(), Log: receipt.NewTally(),
	}
	envelope, err := n.collect(ctx, s, &got, stdout, stderr)
	if err == nil && !got.Done {
		err = mesh.Errorf(mesh.Unavailable, "the run ended without a word on how")
	}
	res.Exit = got.Exit
	if err != nil {
		return res, n.elsewhere(p, err)
	}
	return n.settleRun(ctx, res, job, got, kept, envelope)
}

func writeRecord(w io.Writer, record []byte) error {
	f := frame.Writer{W: w, Type: wire.FrameRecord}
	if _, err := f.Write(record); err != nil {
		return err
	}
	return frame.Write(w, wire.FrameRecord, nil)
}

// collect takes what a run sends until its end.
func (n *Node) collect(ctx context.Context, s *peernet.Stream, got *receipt.Received, stdout, stderr io.Writer) (envelope []byte, err error) {
	stdout, stderr = io.MultiWriter(got.Output, stdout), io.MultiWriter(got.Log, stderr)
	r := bufio.NewReaderSize(s, 64<<10)
	for {
		typ, payload, err := frame.Read(r)
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, mesh.Errorf(mesh.Unavailable, "the connection was lost; the job was ended").Because(err)
		}
		switch typ {
		case wire.FrameStdout:
			_, err = stdout.Write(payload)
		case wire.FrameStderr:
			_, err = stderr.Write(payload)
		case wire.FrameRecord:
			if got.Record = append(got.Record, payload...); len(got.Record) > driver.MaxRecord {
				return nil, mesh.Errorf(mesh.TooLarge, "the record of observations is over %d KiB", driver.MaxRecord>>10)
			}
		case wire.FrameReceipt:
			envelope = payload
		case wire.FrameExit:
			got.Done = true
			return envelope, wire.DecodeBody(payload, &got.Exit)
		case wire.FrameEnd: // of the output of a job that goes on
			return nil, nil
		case wire.FrameError:
			return nil, remoteError(payload)
		}
		if err != nil {
			return nil, err
		}
	}
}

// settleRun holds a run's receipt against what was sent and received, and keeps it.
func (n *Node) settleRun(ctx context.Context, res result, job ask, got receipt.Received, kept *keeper, envelope []byte) (result, error) {
	name := n.m.Trust.Name(got.Runner)
	if envelope == nil {
		return res, mesh.Errorf(mesh.Forged, "%s sent no receipt for the run", name).WithRule("receipt.missing").
			WithHint("do not rely on the output; run it elsewhere")
	}
	r, err := wire.OpenReceipt(envelope)
	if err != nil {
		return res, mesh.Errorf(mesh.Forged, "%s sent a receipt that does not hold", name).WithRule("receipt.signature").
			WithHint("do not rely on the output; run it elsewhere").Because(err)
	}
	if got.Module, err = wire.ParseDigest(job.spec.Digest); err != nil {
		return res, err
	}
	if got.Spec, err = wire.SpecDigest(job.spec); err != nil {
		return res, err
	}
	kept.close()
	got.Sent = kept.sum.Size()
	got.Input = func(size uint64) (wire.Digest, bool) { return kept.prefix(size) }
	res.rec = receipt.Record{Role: receipt.Asked, Envelope: envelope, Added: n.m.Now().UTC(), Spec: &job.spec, Flaw: got.Flaw(r), Signed: r}
	if r.Job == res.id && r.Runner == got.Runner { // evidence also if it contradicts
		if err := n.m.Store.Update(ctx, func(tx *store.Tx) error { return receipt.Add(tx, res.rec) }); err != nil {
			return res, err
		}
	}
	if res.rec.Flaw != "" {
		return res, mesh.Errorf(mesh.Forged, "%s's receipt does not fit the run: it states %s", name, res.rec.Flaw).WithRule("receipt.fits").
			WithHint("do not rely on the output; the receipt is kept as evidence: peerctl receipts show %s", res.id)
	}
	n.keepSeen(ctx, kept, r.InputSize, got.Record)
	return res, nil
}

// keeper keeps the input of a run as it passes, so that the run can be repeated, and
// hashes all of it. It never fails: what is too large is not kept.
type keeper struct {
	mu     sync.Mutex
	w      *blob.Writer // nil if not kept
	sum    *receipt.Tally
	closed bool
}

func (n *Node) keep() *keeper {
	k := &keeper{sum: receipt.NewTally()}
	w, err := n.inputs.Create()
	if err != nil {
		n.log.Warn("cannot keep the input of a run", "err", err)
		return k
	}
	k.w = w
	return k
}

// Write implements io.Writer.
func (k *keeper) Write(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return len(p), nil
	}
	_, _ = k.sum.Write(p)
	if k.w != nil {
		if _, err := k.w.Write(p); err != nil {
			k.w.Discard()
			k.w = nil
		}
	}
	return len(p), nil
}

// close ends what may be written: from here on the other methods agree.
func (k *keeper) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
}

func (k *keeper) discard() {
	k.close()
	if k.w != nil {
		k.w.Discard()
	}
}

// prefix is the digest of the first size bytes; false if they are not known.
func (k *keeper) prefix(size uint64) (wire.Digest, bool) {
	if size == k.sum.Size() {
		return k.sum.Digest(), true
	}
	if k.w == nil || size > k.sum.Size() {
		return wire.Digest{}, false
	}
	t := receipt.NewTally()
	if _, err := io.Copy(t, k.w.Section(int64(size))); err != nil {
		return wire.Digest{}, false
	}
	return t.Digest(), true
}

// keepSeen keeps what a program read and observed, for a repetition. That it cannot
// be kept does not spoil the run.
func (n *Node) keepSeen(ctx context.Context, k *keeper, size uint64, record []byte) {
	k.close()
	var err error
	if k.w != nil && size > 0 {
		if size == k.sum.Size() {
			_, _, err = k.w.Keep(ctx, nil)
		} else {
			_, _, err = n.inputs.Put(ctx, k.w.Section(int64(size)), "", n.cronInputs)
		}
	}
	if err == nil && len(record) > 0 {
		_, _, err = n.inputs.Put(ctx, bytes.NewReader(record), "", n.cronInputs)
	}
	if err != nil {
		n.log.Warn("cannot keep the input of a run; it cannot be repeated without it", "err", err)
	}
}
