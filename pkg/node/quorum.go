package node

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

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
// them sign.

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
	if input != nil {
		defer input.Close()
	}
	asked := n.replicate(ctx, hosts, q.Replicas, job, func() io.Reader {
		if input == nil {
			return eof{}
		}
		return io.NewSectionReader(input, 0, size)
	})
	defer func() {
		for _, r := range asked {
			if r.held != nil {
				r.held.discard()
			}
		}
	}()
	if ctx.Err() != nil {
		return control.RunResult{}, ctx.Err()
	}
	runs := make([]*wire.Receipt, len(asked))
	for i, r := range asked {
		runs[i] = r.run
	}
	group := receipt.Agreeing(runs)
	n.noteAgreement(ctx, runs, group)
	found := n.quorumOf(asked, group, q.Quorum)
	if !found.Reached() {
		_, _, _, err := start(control.Started{})
		return control.RunResult{State: string(jobs.Done), Quorum: found}, err
	}
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

// replicate runs a job on as many hosts at once. A host that does not take it is
// passed over for the next; one that took it and failed is not.
func (n *Node) replicate(ctx context.Context, hosts []trust.Grant, replicas int, job ask, input func() io.Reader) []*replica {
	var mu sync.Mutex
	var asked []*replica // in the order of hosts
	next := func() *replica {
		mu.Lock()
		defer mu.Unlock()
		if len(asked) == len(hosts) || ctx.Err() != nil {
			return nil
		}
		r := &replica{peer: hosts[len(asked)].Peer}
		asked = append(asked, r)
		return r
	}
	var wg sync.WaitGroup
	for range replicas {
		wg.Go(func() {
			for r := next(); r != nil; r = next() {
				n.runReplica(ctx, r, job, input())
				if r.begun || !elsewhereMay(r.err) {
					return
				}
			}
		})
	}
	wg.Wait()
	return asked
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
		r.run, r.err = wire.OpenReceipt(r.got.rec.Envelope)
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

// noteAgreement writes down with each receipt which other run it agrees with, or
// differs from. That it cannot be written down does not spoil the result.
func (n *Node) noteAgreement(ctx context.Context, runs []*wire.Receipt, group []int) {
	if len(group) == 0 {
		return
	}
	first := runs[group[0]]
	var second *wire.Receipt // to hold the first against
	if len(group) > 1 {
		second = runs[group[1]]
	}
	for _, r := range runs {
		if second == nil && r != nil && r != first && receipt.Repeatable(r) == nil {
			second = r
		}
	}
	err := n.m.Store.Update(ctx, func(tx *store.Tx) error {
		for _, r := range runs {
			by := first
			if r == first {
				by = second
			}
			if r == nil || by == nil || receipt.Repeatable(r) != nil {
				continue
			}
			v := receipt.Verification{By: by.Runner, At: n.m.Now().UTC(), Receipt: by.Job, Differs: receipt.Differences(r, by)}
			if err := receipt.Verified(tx, r.Job, v); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		n.log.Warn("cannot note which runs agree", "err", err)
	}
}
