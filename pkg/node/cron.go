package node

import (
	"context"

	"peercompute/pkg/control"
	"peercompute/pkg/cron"
	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// This file is the jobs that this node queues again and again.

func newCrons(n *Node) *cron.Table {
	return cron.New(cron.Config{Store: n.m.Store, Now: n.m.Now, Log: n.log, Submit: n.submitCron, Note: n.noteLocal})
}

// submitCron queues a cron job that is due. Its peer may have another key by now.
func (n *Node) submitCron(ctx context.Context, e cron.Entry) (mesh.WorkloadID, error) {
	order := asked{Peer: e.Peer, Spec: e.Spec, Seed: driver.Seed(randomDigest()), Input: e.Input}
	if order.Peer != n.m.Key.ID {
		order.Peer = n.m.Trust.Resolve(order.Peer)
	}
	var err error
	if order.InputSize, err = n.inputSize(e.Input); err != nil {
		return "", err
	}
	job, err := n.queueOn(ctx, order, e.Key())
	return job.ID, err
}

// cronInputs are the inputs that may not be dropped for room.
func (n *Node) cronInputs() (map[string]bool, error) {
	used := map[string]bool{}
	all, err := n.crons.All()
	for _, e := range all {
		used[e.Input] = true
	}
	return used, err
}

// cronModules adds the modules of cron jobs to used.
func cronModules(tx *store.Tx, used map[string]bool) error {
	all, err := cron.Each(tx)
	for _, e := range all {
		used[e.Spec.Digest] = true
	}
	return err
}

// CreateCron takes in a job that is to be queued again and again.
func (a *api) CreateCron(ctx context.Context, c control.NewCron) (control.Cron, error) {
	spec := jobSpec(c.Spec)
	if err := spec.Validate(); err != nil {
		return control.Cron{}, err
	}
	if _, err := a.n.cfg.Modules.Path(spec.Digest); err != nil {
		return control.Cron{}, err
	}
	if _, err := a.n.inputSize(c.Input); err != nil {
		return control.Cron{}, err
	}
	p, err := a.where(c.Peer)
	if err != nil {
		return control.Cron{}, err
	}
	e, err := a.n.crons.Add(ctx, cron.Entry{Name: c.Name, Schedule: c.Schedule, Peer: p, Spec: spec, Input: c.Input})
	return a.n.showCron(e), err
}

// Crons lists them.
func (a *api) Crons(context.Context) ([]control.Cron, error) {
	all, err := a.n.crons.All()
	out := []control.Cron{}
	for _, e := range all {
		out = append(out, a.n.showCron(e))
	}
	return out, err
}

// PauseCron makes one wait until ResumeCron.
func (a *api) PauseCron(ctx context.Context, name string) (control.Cron, error) {
	e, err := a.n.crons.Pause(ctx, name, true)
	return a.n.showCron(e), err
}

// ResumeCron lets one go on, with its next time.
func (a *api) ResumeCron(ctx context.Context, name string) (control.Cron, error) {
	e, err := a.n.crons.Pause(ctx, name, false)
	return a.n.showCron(e), err
}

// RemoveCron drops one; its jobs stay.
func (a *api) RemoveCron(ctx context.Context, name string) (control.Cron, error) {
	e, err := a.n.crons.Remove(ctx, name)
	return a.n.showCron(e), err
}

func (n *Node) showCron(e cron.Entry) control.Cron {
	if e.Name == "" {
		return control.Cron{}
	}
	return control.Cron{
		Name: e.Name, Schedule: e.Schedule, Peer: n.m.Trust.Name(n.m.Trust.Resolve(e.Peer)), Module: e.Spec.Digest, Made: e.Made, Paused: e.Paused,
		Due: e.Due, Last: e.Last, Job: e.Job, Missed: e.Missed, Failure: e.Failure,
	}
}
