package node

import (
	"context"
	"io"

	"golang.org/x/sync/errgroup"

	"peercompute/pkg/jobs"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

// jobOutput writes what a job here wrote, and returns what it observed. With Follow it
// returns when the job is done.
func (n *Node) jobOutput(ctx context.Context, in wire.JobOutput, stdout, stderr io.Writer) (record []byte, err error) {
	if !in.Quiet {
		if record, err = n.copyOutput(ctx, in, stdout, stderr); err != nil {
			return nil, err
		}
	}
	if !in.Follow {
		return record, nil
	}
	return record, n.awaitJob(ctx, in.Job)
}

func (n *Node) copyOutput(ctx context.Context, in wire.JobOutput, stdout, stderr io.Writer) ([]byte, error) {
	o, err := n.queue.Outputs(ctx, in.Job, in.Follow)
	if err != nil {
		return nil, err
	}
	defer o.Close()
	g, _ := errgroup.WithContext(ctx)
	g.Go(func() error { _, err := io.Copy(stdout, o.Stdout); return err })
	g.Go(func() error { _, err := io.Copy(stderr, o.Stderr); return err })
	return o.Record, g.Wait()
}

// awaitJob waits until a job is done.
func (n *Node) awaitJob(ctx context.Context, id mesh.WorkloadID) error {
	for {
		changed := n.queue.Changed()
		var j jobs.Job
		err := n.m.Store.View(func(tx *store.Tx) (err error) { j, err = jobs.Get(tx, id); return err })
		if err != nil || j.State == jobs.Done {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
