package node

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"peercompute/pkg/alarm"
	"peercompute/pkg/blob"
	"peercompute/pkg/control"
	"peercompute/pkg/driver"
	"peercompute/pkg/jobs"
	"peercompute/pkg/mesh"
	"peercompute/pkg/receipt"
	"peercompute/pkg/store"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// This file has the same job run by several peers at once, and believes what most of
// them sign, as soon as enough do. The others go on: what they sign is compared when it
// comes.

const (
	maxReplicas = 9
	// quorumGrace is what a peer may take besides the job's own time: to be reached,
	// to be sent the module and to compile it.
	quorumGrace = 2 * time.Minute
	// maxHeld bounds what one replica may write while nobody knows yet whether to
	// believe it, in bytes. It waits on disk.
	maxHeld = wire.MaxInput
)

// replica is one peer's run.
type replica struct {
	peer  mesh.PeerID
	begun bool // the peer took it
	ended bool // what follows is complete; of whoever receives from replicas.done
	got   result
	run   *wire.Receipt // nil if it came to nothing
	err   error
	held  *held
}

// held keeps what a run wrote.
type held struct {
	mu       sync.Mutex
	out, log *blob.Writer
}

func (n *Node) holdOutput() (*held, error) {
	out, err := n.inputs.Create()
	if err != nil {
		return nil, err
	}
	log, err := n.inputs.Create()
	if err != nil {
		out.Discard()
		return nil, err
	}
	return &held{out: out, log: log}, nil
}

func (h *held) discard() {
	h.out.Discard()
	h.log.Discard()
}

// heldWriter is one of the streams into a held.
type heldWriter struct {
	h *held
	w *blob.Writer
}

// Write implements io.Writer.
func (w heldWriter) Write(p []byte) (int, error) {
	w.h.mu.Lock()
	defer w.h.mu.Unlock()
	if w.h.out.Size()+w.h.log.Size()+int64(len(p)) > maxHeld {
		return 0, mesh.Errorf(mesh.TooLarge, "it writes more than %d MiB, which is as much as is held back until a quorum agrees", maxHeld>>20).WithRule("quorum.output")
	}
	return w.w.Write(p)
}

func checkQuorum(q control.RunQuorum) error {
	switch {
	case q.Replicas < 2 || q.Replicas > maxReplicas:
		return mesh.Errorf(mesh.Invalid, "%d replicas cannot be had, only 2 to %d", q.Replicas, maxReplicas)
	case q.Quorum > q.Replicas:
		return mesh.Errorf(mesh.Invalid, "%d of %d can never agree", q.Quorum, q.Replicas)
	case 2*q.Quorum <= q.Replicas:
		return mesh.Errorf(mesh.Invalid, "with a quorum of %d of %d two different results could both have one", q.Quorum, q.Replicas).
			WithHint("ask for at least %d", q.Replicas/2+1)
	}
	return nil
}

// RunQuorum runs a job on the nearest peers that take it, and gives what a quorum
// of them agrees on.
func (a *api) RunQuorum(ctx context.Context, q control.RunQuorum, start control.StartJob) (control.RunResult, error) {
	n := a.n
	job := ask{spec: jobSpec(q.Spec), seed: driver.Seed(randomDigest()), whole: true}
	if err := errors.Join(checkQuorum(q), job.spec.Validate()); err != nil {
		return control.RunResult{}, err
	}
	hosts := n.hosts(ctx)
	if len(hosts) < q.Replicas {
		return control.RunResult{}, mesh.Errorf(mesh.Invalid, "%d replicas need as many trusted peers; there are %d", q.Replicas, len(hosts)).
			WithHint("trust more with: peerctl peers join TOKEN; or ask for fewer with --replicas")
	}
	input, size, err := n.sharedInput(q.Input)
	if err != nil {
		return control.RunResult{}, err
	}
	r := n.replicate(ctx, hosts, q.Replicas, job, func() io.Reader {
		if input == nil {
			return eof{}
		}
		return io.NewSectionReader(input, 0, size)
	})
	r.close = func() {
		if input != nil {
			input.Close()
		}
	}
	asked, group := r.await(q.Quorum)
	if ctx.Err() != nil {
		r.drain()
		return control.RunResult{}, ctx.Err()
	}
	n.noteAgreement(ctx, asked, group)
	found := n.quorumOf(asked, group, q.Quorum)
	if !found.Reached() {
		r.drain()
		_, _, _, err := start(control.Started{})
		return control.RunResult{State: string(jobs.Done), Quorum: found}, err
	}
	defer n.leave(ctx, r, asked[group[0]].run)
	return n.agreed(asked, group, found, start)
}

// agreed hands out what a quorum agreed on, and leaves out what only one peer said.
func (n *Node) agreed(asked []*replica, group []int, found *control.Quorum, start control.StartJob) (control.RunResult, error) {
	best := asked[group[0]]
	_, stdout, stderr, err := start(control.Started{ID: best.got.id, Peer: n.m.Trust.Name(best.peer)})
	if err != nil {
		return control.RunResult{}, err
	}
	if _, err := io.Copy(stdout, best.held.out.Section(maxHeld)); err != nil {
		return control.RunResult{}, err
	}
	if _, err := io.Copy(stderr, best.held.log.Section(maxHeld)); err != nil {
		return control.RunResult{}, err
	}
	res := n.runResult(best.got)
	res.Quorum, res.Trace, res.Reason = found, "", best.run.Reason // no receipt states a trace
	for _, i := range group {
		if asked[i].run.Reason != res.Reason {
			res.Reason = best.run.Kind.String()
		}
	}
	return res, nil
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// sharedInput opens an input that was uploaded; nil if there is none.
func (n *Node) sharedInput(digest string) (*os.File, int64, error) {
	if digest == "" {
		return nil, 0, nil
	}
	f, err := n.inputs.Open(digest)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// replicas are the runs of one job.
type replicas struct {
	done   chan *replica      // each that has ended; closed after the last
	cancel context.CancelFunc // ends those that run
	follow func() bool        // from now on whoever asked may go away
	close  func()             // to be called when the last has ended

	mu    sync.Mutex
	asked []*replica // in the order of hosts

	ended []*replica // those received from done
}

// replicate runs a job on as many hosts at once. A host that does not take it is
// passed over for the next; one that took it and failed is not.
func (n *Node) replicate(ctx context.Context, hosts []trust.Grant, wanted int, job ask, input func() io.Reader) *replicas {
	r := &replicas{done: make(chan *replica, len(hosts))}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r.cancel, r.follow = cancel, context.AfterFunc(ctx, cancel)
	next := func() *replica {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.asked) == len(hosts) || running.Err() != nil {
			return nil
		}
		one := &replica{peer: hosts[len(r.asked)].Peer}
		r.asked = append(r.asked, one)
		return one
	}
	var wg sync.WaitGroup
	for range wanted {
		wg.Go(func() {
			for one := next(); one != nil; one = next() {
				n.runReplica(running, one, job, input())
				r.done <- one
				if one.begun || !elsewhereMay(one.err) {
					return
				}
			}
		})
	}
	go func() {
		wg.Wait()
		close(r.done)
	}()
	return r
}

// await waits until so many runs agree, or all have ended. It returns all that were
// asked, and the places of the largest set that agrees.
func (r *replicas) await(quorum int) (asked []*replica, group []int) {
	for len(group) < quorum {
		one, ok := <-r.done
		if !ok {
			break
		}
		one.ended = true
		r.ended = append(r.ended, one)
		r.mu.Lock()
		asked = slices.Clone(r.asked)
		r.mu.Unlock()
		runs := make([]*wire.Receipt, len(asked))
		for i, a := range asked {
			if a.ended {
				runs[i] = a.run
			}
		}
		group = receipt.Agreeing(runs)
	}
	return asked, group
}

// discard lets go of what is kept of runs that have ended.
func (r *replicas) discard() {
	for _, one := range r.ended {
		if one.held != nil {
			one.held.discard()
		}
	}
	r.ended = nil
}

// drain ends what still runs, and lets go of all.
func (r *replicas) drain() {
	r.cancel()
	for one := range r.done {
		r.ended = append(r.ended, one)
	}
	r.discard()
	r.close()
}

// late are runs that nobody waits for any more, and the receipt to compare theirs with.
type late struct {
	*replicas
	good *wire.Receipt
}

// leave has the runs that have not ended followed to their end.
func (n *Node) leave(ctx context.Context, r *replicas, good *wire.Receipt) {
	r.discard()
	if r.follow() {
		select {
		case n.late <- late{r, good}:
			return
		case <-ctx.Done():
		}
	}
	r.drain()
}

// followLate waits for runs that a quorum did without, until ctx ends; that ends them.
func (n *Node) followLate(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case l := <-n.late:
			wg.Go(func() { n.compareLate(ctx, l) })
		case <-ctx.Done():
			return nil
		}
	}
}

func (n *Node) compareLate(ctx context.Context, l late) {
	defer context.AfterFunc(ctx, l.cancel)()
	defer l.drain()
	for one := range l.done {
		l.ended = append(l.ended, one)
		if one.run == nil || receipt.Repeatable(one.run) != nil {
			continue
		}
		// The alarm first: who sees that the receipt is disputed finds it.
		if differs := receipt.Differences(l.good, one.run); len(differs) > 0 && one.run.RecordSize+l.good.RecordSize == 0 { // else what they observe may differ
			err := n.m.Alarms.Raise(ctx, alarm.Alarm{
				Kind: "quorum.differs", Peer: one.peer, Text: "its run of a job differs from what a quorum agreed on: " + strings.Join(differs, "; "),
				Hint: "see what it signed with: peerctl receipts show " + string(one.run.Job),
			})
			if err != nil {
				n.log.Error("cannot raise an alarm", "err", err)
			}
		}
		n.noteRuns(ctx, []compared{{one.run, l.good}})
	}
}

func (n *Node) runReplica(ctx context.Context, r *replica, job ask, input io.Reader) {
	limit := job.spec.Timeout + quorumGrace
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if r.held, r.err = n.holdOutput(); r.err != nil {
		return
	}
	r.got, r.err = n.runOn(within, r.peer, job, func(mesh.PeerID, mesh.WorkloadID) (io.Reader, io.Writer, io.Writer, error) {
		r.begun = true
		return input, heldWriter{r.held, r.held.out}, heldWriter{r.held, r.held.log}, nil
	})
	if r.err == nil {
		r.run, r.err = r.got.rec.Open()
	} else if within.Err() != nil && ctx.Err() == nil {
		r.err = mesh.Errorf(mesh.Timeout, "it came to no end within %s", limit)
	}
}

// quorumOf says what each peer did.
func (n *Node) quorumOf(asked []*replica, group []int, wanted int) *control.Quorum {
	out := &control.Quorum{Wanted: wanted, Agreed: len(group), Replicas: []control.Replica{}}
	agrees := map[int]bool{}
	for _, i := range group {
		agrees[i] = true
	}
	for i, r := range asked {
		line := control.Replica{Peer: n.m.Trust.Name(r.peer), PeerID: r.peer}
		if !r.ended {
			line.State = control.ReplicaLate
			out.Replicas = append(out.Replicas, line)
			continue
		}
		if len(r.got.rec.Envelope) > 0 {
			line.Receipt = r.got.id
		}
		switch {
		case r.err != nil:
			line.State, line.Reason = control.ReplicaFailed, mesh.AsError(r.err).Msg
		case agrees[i] && len(group) == 1:
			line.State = control.ReplicaAlone
		case agrees[i]:
			line.State = control.ReplicaAgrees
		default:
			if err := receipt.Repeatable(r.run); err != nil {
				line.State, line.Reason = control.ReplicaFailed, mesh.AsError(err).Msg
				break
			}
			line.State, line.Differs = control.ReplicaDiffers, receipt.Differences(asked[group[0]].run, r.run)
		}
		out.Replicas = append(out.Replicas, line)
	}
	return out
}

// compared is a run, and another one of the same job that it is held against.
type compared struct{ run, with *wire.Receipt }

// noteAgreement holds each run that has ended against one of those that agree, and
// that one against another.
func (n *Node) noteAgreement(ctx context.Context, asked []*replica, group []int) {
	if len(group) == 0 {
		return
	}
	first := asked[group[0]].run
	var pairs []compared
	for _, r := range asked {
		if r.ended && r.run != nil && r.run != first && receipt.Repeatable(r.run) == nil {
			pairs = append(pairs, compared{r.run, first})
		}
	}
	if len(group) > 1 {
		pairs = append(pairs, compared{first, asked[group[1]].run})
	} else if len(pairs) > 0 {
		pairs = append(pairs, compared{first, pairs[0].run})
	}
	n.noteRuns(ctx, pairs)
}

// noteRuns writes down with each receipt which other it agrees with, or differs from.
// That it cannot be written down does not spoil a result.
func (n *Node) noteRuns(ctx context.Context, pairs []compared) {
	err := n.m.Store.Update(ctx, func(tx *store.Tx) error {
		for _, c := range pairs {
			v := receipt.Verification{By: c.with.Runner, At: n.m.Now().UTC(), Receipt: c.with.Job, Differs: receipt.Differences(c.run, c.with)}
			if err := receipt.Verified(tx, c.run.Job, v); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		n.log.Warn("cannot note which runs agree", "err", err)
	}
}
