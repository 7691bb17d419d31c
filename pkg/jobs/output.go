package jobs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// This file gives out what jobs wrote.

// Outputs are what a job wrote, from the beginning.
type Outputs struct {
	Stdout, Stderr io.ReadCloser
	Record         []byte
}

// Close ends reading.
func (o Outputs) Close() error { return errors.Join(o.Stdout.Close(), o.Stderr.Close()) }

// Outputs opens what a job has written. With follow, reading it goes on until the
// job ends, and it begins once the job does; without, up to what is there.
func (q *Queue) Outputs(ctx context.Context, id mesh.WorkloadID, follow bool) (Outputs, error) {
	for {
		changed := q.Changed()
		if out, ok := q.liveOutputs(ctx, id, follow); ok {
			return out, nil
		}
		out, state, err := q.keptOutputs(id)
		if err != nil || state == Done || !follow {
			return out, err
		}
		if err := out.Close(); err != nil {
			return Outputs{}, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Outputs{}, ctx.Err()
		}
	}
}

// liveOutputs are those of a job that runs.
func (q *Queue) liveOutputs(ctx context.Context, id mesh.WorkloadID, follow bool) (Outputs, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	r := q.live[id]
	if r == nil {
		return Outputs{}, false
	}
	r.refs += 2
	read := func(p part) io.ReadCloser {
		return &spoolReader{ctx: ctx, s: r.spools[p], follow: follow, done: sync.OnceFunc(func() { q.letGo(r) })}
	}
	return Outputs{Stdout: read(partOutput), Stderr: read(partLog)}, true
}

// keptOutputs are those of a job that is done; of another there are none yet.
func (q *Queue) keptOutputs(id mesh.WorkloadID) (out Outputs, state State, err error) {
	err = q.cfg.Store.View(func(tx *store.Tx) error {
		j, err := Get(tx, id)
		if err != nil {
			return err
		}
		state = j.State
		if j.Dropped {
			return mesh.Errorf(mesh.NotFound, "the output of job %s is not kept any more", id).
				WithHint("the %d newest results of a peer are kept, of at most %d MiB in all; run it again", q.cfg.Results, q.cfg.ResultBytes>>20)
		}
		if out.Stdout, err = q.open(tx, j, partOutput, j.Output); err != nil {
			return err
		}
		if out.Stderr, err = q.open(tx, j, partLog, j.Log); err != nil {
			out.Stdout.Close()
			return err
		}
		out.Record = bytes.Clone(tx.Get(store.Outputs, outputKey(id, partRecord)))
		return nil
	})
	return out, state, err
}

func (q *Queue) open(tx *store.Tx, j Job, p part, s Stored) (io.ReadCloser, error) {
	if !s.File {
		return io.NopCloser(bytes.NewReader(bytes.Clone(tx.Get(store.Outputs, outputKey(j.ID, p))))), nil
	}
	f, err := os.Open(q.outputFile(j.ID, p))
	if err != nil {
		return nil, mesh.Errorf(mesh.Internal, "the output of job %s is lost", j.ID).Because(err)
	}
	return f, nil
}

// removeFiles removes the files of jobs whose outputs went.
func (q *Queue) removeFiles(ids []mesh.WorkloadID) {
	for _, id := range ids {
		for _, p := range parts {
			if err := os.Remove(q.outputFile(id, p)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				q.cfg.Log.Warn("cannot remove an old output; it is tried again at the next start", "job", id, "err", err)
			}
		}
	}
}
