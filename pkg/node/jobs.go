package node

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"peercompute/pkg/admission"
	"peercompute/pkg/driver"
	"peercompute/pkg/frame"
	"peercompute/pkg/jobs"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/receipt"
	"peercompute/pkg/request"
	"peercompute/pkg/store"
	"peercompute/pkg/supervisor"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// This file runs jobs in the foreground: they live as long as the one who waits
// for them, and count against the same limits as workloads while they do.

// eachDigest finds the modules that something here still needs.
func eachDigest(tx *store.Tx, used map[string]bool) error {
	err := supervisor.Each(tx, func(r supervisor.Record) error {
		for _, s := range r.Specs() {
			used[s.Digest] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := cronModules(tx, used); err != nil {
		return err
	}
	return jobs.Each(tx, func(j jobs.Job) error {
		if j.State != jobs.Done {
			used[j.Spec.Digest] = true
		}
		return nil
	})
}

// jobSpec is what a spec means for a job, whoever reads it.
func jobSpec(spec mesh.Spec) mesh.Spec {
	spec.Shape, spec.Restart, spec.Publish = mesh.Job, mesh.RestartNo, nil
	return spec.WithDefaults()
}

// repeated is what a spec asks for when its run repeats another: that sees what the
// first one saw, and nothing of the outside.
func repeated(spec mesh.Spec) mesh.Spec {
	spec.Hosts, spec.Egress, spec.Clock = nil, "", ""
	return spec
}

// job admits a job, by what judged asks for. Its resources are held from commit until
// release.
func (n *Node) job(ctx context.Context, who mesh.PeerID, g trust.Grant, request wire.Digest, spec, judged mesh.Spec) (w mesh.Workload, commit func(*store.Tx) error, release func(), err error) {
	spec, judged = jobSpec(spec), jobSpec(judged)
	if spec.Runtime != mesh.Wasm {
		return w, nil, nil, mesh.Errorf(mesh.Unsupported, "only WASM modules run as foreground jobs")
	}
	if err := spec.Validate(); err != nil {
		return w, nil, nil, err
	}
	if _, err := n.cfg.Modules.Path(spec.Digest); err != nil {
		return w, nil, nil, err
	}
	policy := n.policy(ctx)
	w = mesh.Workload{ID: mesh.NewWorkloadID(request), Owner: who, Spec: spec, Created: n.m.Now().UTC()}
	commit = func(tx *store.Tx) error {
		n.forget(request) // a transaction may run twice
		return n.admit(tx, policy, g, request, w, judged)
	}
	return w, commit, func() { n.release(who, request) }, nil
}

// admit judges a job that is to run now by what it asks for, in the transaction that
// lets it, and takes hold of what it uses until release.
func (n *Node) admit(tx *store.Tx, policy admission.Policy, g trust.Grant, request wire.Digest, w mesh.Workload, judged mesh.Spec) error {
	if err := n.decide(tx, policy, w.Owner, g, judged); err != nil {
		return err
	}
	if err := n.note(tx, w.Owner, "run", w, describe(w.Spec)); err != nil {
		return err
	}
	if err := n.reserve(tx, w.Owner, request, w.Spec); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.jobs[request] = heldJob{owner: w.Owner, spec: w.Spec}
	return nil
}

// forget lets go of what is held in memory for a job; it reports whether fuel is
// still set aside for it.
func (n *Node) forget(request wire.Digest) (unsettled bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	j, held := n.jobs[request]
	delete(n.jobs, request)
	return held && !j.settled
}

// release lets go of all that admit took hold of.
func (n *Node) release(who mesh.PeerID, request wire.Digest) {
	if n.forget(request) { // it did not run
		n.settle(who, request, 0)
	}
}

// task is one run of a job: what it is, for whom, and what it is given.
type task struct {
	w       mesh.Workload
	request wire.Digest // that asked for it
	job     driver.Job
}

// ran is a run that has ended, and what its receipt says of it.
type ran struct {
	driver.Ran
	receipt []byte                // the envelope
	keep    func(*store.Tx) error // what is to be on disk before anybody hears of it
	kept    func()                // to be called once it is
	held    bool                  // it was ended because this machine lends no more now
}

// execute runs a job to its end and signs its receipt. It fails only if the job
// could not be run at all.
func (n *Node) execute(ctx context.Context, t task) (ran, error) {
	r, ok := n.cfg.Runtimes[t.w.Spec.Runtime].Driver.(driver.Runner)
	if !ok {
		return ran{}, mesh.Errorf(mesh.Unsupported, "this node cannot run jobs")
	}
	out, log := receipt.NewTally(), receipt.NewTally()
	j := t.job
	j.Stdout, j.Stderr = io.MultiWriter(out, j.Stdout), io.MultiWriter(log, j.Stderr)
	started := n.m.Now()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	n.began(t, cancel)
	got, err := r.Run(ctx, t.w, j)
	if err != nil {
		return ran{}, err
	}
	held := errors.Is(context.Cause(ctx), errHeld)
	if held {
		got.Reason = "ended by this machine's owner: " + n.hold(t.w).Reason
	}
	rec, err := n.issue(t, got, out, log, started)
	if err != nil {
		return ran{}, err
	}
	settle, settled := n.settling(t.w.Owner, t.request, burntBy(got.Exit, t.w.Spec))
	return ran{
		Ran: got, receipt: rec.Envelope, held: held,
		keep: func(tx *store.Tx) error { return errors.Join(settle(tx), n.addReceipt(tx, rec, t.w.Owner)) },
		kept: func() {
			n.mark(t.request, func(j *heldJob) { j.settled = true })
			settled()
		},
	}, nil
}

// attended is execute for somebody who waits: the receipt is on disk when it returns.
func (n *Node) attended(ctx context.Context, t task) (ran, error) {
	got, err := n.execute(ctx, t)
	if err != nil {
		return got, err
	}
	// The run has happened: its receipt is kept even if the asker is gone by now.
	if err := n.m.Store.Update(context.WithoutCancel(ctx), got.keep); err != nil {
		return got, err
	}
	got.kept()
	return got, nil
}

// began makes a job one that can be ended from here, and ends it at once if it may
// not run any more.
func (n *Node) began(t task, cancel func(error)) {
	n.mark(t.request, func(j *heldJob) { j.cancel = cancel })
	n.endJobs()
}

func (n *Node) mark(request wire.Digest, change func(*heldJob)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if j, ok := n.jobs[request]; ok {
		change(&j)
		n.jobs[request] = j
	}
}

func (n *Node) onRun(ctx context.Context, c *request.Call) (request.Reply, error) {
	var in wire.Run
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return request.Reply{}, err
	}
	seed, err := seedOf(in.Seed)
	if err != nil {
		return request.Reply{}, err
	}
	judged := in.Spec
	if in.Repeat {
		judged = repeated(judged)
	}
	w, commit, release, err := n.job(ctx, c.From, c.Grant, c.Digest, in.Spec, judged)
	if err != nil {
		return request.Reply{}, err
	}
	t := task{w, c.Digest, driver.Job{Seed: seed, Whole: in.Whole}}
	return request.Reply{
		Body: wire.Accepted{Workload: w.ID, Spec: w.Spec}, Commit: commit, Cancel: release,
		Stream: func(ctx context.Context, s *peernet.Stream) error {
			defer release()
			return n.serveJob(ctx, s, t, in.Repeat)
		},
	}, nil
}

// seedOf is the asker's seed, or a new one if it gave none.
func seedOf(b []byte) (driver.Seed, error) {
	switch len(b) {
	case 0:
		return driver.Seed(randomDigest()), nil
	case len(driver.Seed{}):
		return driver.Seed(b), nil
	}
	return driver.Seed{}, mesh.Errorf(mesh.Invalid, "a seed has %d bytes, not %d", len(driver.Seed{}), len(b))
}

// serveJob runs a job with its streams as frames on s.
func (n *Node) serveJob(ctx context.Context, s *peernet.Stream, t task, repeat bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if repeat {
		record, err := readRecord(deadlineReader{s})
		if err != nil {
			return endWithError(s, err)
		}
		s.SetReadDeadline(time.Time{})
		t.job.Replay = &driver.Replayed{Record: record}
	}
	stdin, in := io.Pipe()
	var reading sync.WaitGroup
	reading.Go(func() { feed(s, in, cancel) })
	out := &lockedWriter{w: deadlineWriter{s}}
	t.job.Stdin = stdin
	t.job.Stdout, t.job.Stderr = frame.Writer{W: out, Type: wire.FrameStdout}, frame.Writer{W: out, Type: wire.FrameStderr}
	got, err := n.attended(ctx, t)
	stdin.Close()
	defer reading.Wait()
	defer s.CloseRead()
	if err != nil {
		return endWithError(s, err)
	}
	exit, err := wire.Marshal(got.Exit)
	if err != nil {
		return err
	}
	record := frame.Writer{W: out, Type: wire.FrameRecord}
	if _, err := record.Write(got.Record); err != nil {
		return err
	}
	if err := frame.Write(out, wire.FrameReceipt, got.receipt); err != nil {
		return err
	}
	if err := frame.Write(out, wire.FrameExit, exit); err != nil {
		return err
	}
	return s.CloseWrite()
}

// readRecord reads frames of a record until the empty one that ends it.
func readRecord(r io.Reader) ([]byte, error) {
	var record []byte
	for {
		typ, p, err := frame.Read(r)
		if err != nil {
			return nil, mesh.Errorf(mesh.Unavailable, "the record of observations did not come").Because(err)
		}
		if typ != wire.FrameRecord {
			return nil, mesh.Errorf(mesh.Invalid, "the run to repeat has no record before its input")
		}
		if len(p) == 0 {
			return record, nil
		}
		if record = append(record, p...); len(record) > driver.MaxRecord {
			return nil, mesh.Errorf(mesh.TooLarge, "the record of observations is over %d KiB", driver.MaxRecord>>10)
		}
	}
}

// feed turns frames into a job's input. A stream that breaks ends the job.
func feed(r io.Reader, in *io.PipeWriter, cancel func()) {
	for {
		typ, p, err := frame.Read(r)
		if err != nil {
			in.CloseWithError(io.ErrUnexpectedEOF)
			cancel()
			return
		}
		if typ != wire.FrameStdin {
			continue
		}
		if len(p) == 0 {
			in.Close()
		} else if _, err := in.Write(p); err != nil {
			continue // the job reads no more; keep watching the stream
		}
	}
}

// lockedWriter lets two streams share a connection frame by frame.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
