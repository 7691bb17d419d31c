package node

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/driver"
	"peercompute/pkg/jobs"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

// This file is the jobs that this node queued on other peers: what it remembers of
// them, and how it learns what came of them.

// asked is a job that this node queued elsewhere, as it last knew of it.
type asked struct {
	Peer      mesh.PeerID  `json:"peer"`
	Spec      mesh.Spec    `json:"spec"`
	Seed      driver.Seed  `json:"seed"` // zero = not known
	Input     string       `json:"input,omitempty"`
	InputSize int64        `json:"input_size,omitempty"`
	Added     time.Time    `json:"added"`
	View      wire.JobView `json:"view"`    // without its receipt
	Settled   bool         `json:"settled"` // it is done, and its receipt is dealt with
}

// Bounds of what is remembered.
const (
	maxAsked   = 4000                // jobs in all
	keptAsked  = 1000                // settled ones
	staleAsked = 30 * 24 * time.Hour // after which nothing more is expected
)

func putAsked(tx *store.Tx, a asked) error {
	a.View.Receipt = nil
	return tx.PutJSON(store.AskedJobs, []byte(a.View.ID), a)
}

func getAsked(tx *store.Tx, id mesh.WorkloadID) (a asked, ok bool, err error) {
	ok, err = tx.GetJSON(store.AskedJobs, []byte(id), &a)
	return a, ok, err
}

// askedJobs lists them, the newest first.
func (n *Node) askedJobs() (out []asked, err error) {
	err = n.m.Store.View(func(tx *store.Tx) error {
		return tx.Each(store.AskedJobs, nil, func(k, _ []byte) (bool, error) {
			a, _, err := getAsked(tx, mesh.WorkloadID(k))
			out = append(out, a)
			return err == nil, err
		})
	})
	slices.SortFunc(out, func(x, y asked) int {
		return cmp.Or(y.Added.Compare(x.Added), cmp.Compare(x.View.ID, y.View.ID))
	})
	return out, err
}

// showAsked is a job elsewhere as the local person sees it; why says that its peer
// could not be asked now.
func (n *Node) showAsked(a asked, why error) control.Job {
	v := a.View
	out := control.Job{
		ID: v.ID, Name: v.Name, Peer: n.m.Trust.Name(a.Peer), PeerID: a.Peer, Owner: n.m.Trust.Name(n.m.Key.ID), OwnerID: n.m.Key.ID,
		Module: v.Module, State: v.State, Submitted: time.UnixMilli(v.Submitted).UTC(), Ahead: v.Ahead, Attempts: v.Attempts, Exit: v.Exit,
		OutputSize: v.OutputSize, LogSize: v.LogSize, Dropped: v.Dropped,
	}
	if v.Started != 0 {
		out.Started = time.UnixMilli(v.Started).UTC()
	}
	if v.Ended != 0 {
		out.Ended = time.UnixMilli(v.Ended).UTC()
	}
	if why != nil && v.State != string(jobs.Done) {
		out.State, out.Reason = string(mesh.Unknown), mesh.AsError(why).Msg
	}
	return out
}

// showJob is a job here.
func (n *Node) showJob(v jobs.View) control.Job {
	out := n.showAsked(asked{Peer: n.m.Key.ID, View: jobView(v, false)}, nil)
	out.Owner, out.OwnerID = n.m.Trust.Name(v.Owner), v.Owner
	return out
}

// Jobs lists this node's jobs anywhere, and all that are here.
func (a *api) Jobs(ctx context.Context, peer string) ([]control.Job, error) {
	n := a.n
	var only mesh.PeerID
	if peer != "" {
		p, err := a.where(peer)
		if err != nil {
			return nil, err
		}
		only = p
	}
	out := []control.Job{}
	if only == "" || only == n.m.Key.ID {
		views, err := n.listJobs(n.m.Key.ID)
		if err != nil {
			return nil, err
		}
		for _, v := range views {
			out = append(out, n.showJob(v))
		}
	}
	known, err := n.askedJobs()
	if err != nil {
		return nil, err
	}
	said := n.askAbout(ctx, known)
	for _, k := range known {
		if only != "" && k.Peer != only {
			continue
		}
		now := said[k.Peer]
		if v, ok := now.views[k.View.ID]; ok && !k.Settled {
			k.View = v
		}
		out = append(out, n.showAsked(k, now.err))
	}
	slices.SortStableFunc(out, func(x, y control.Job) int { return y.Submitted.Compare(x.Submitted) })
	return out, nil
}

// findJob resolves an ID or a unique prefix: a job of ours elsewhere, or any here.
func (n *Node) findJob(ref string) (k asked, here bool, err error) {
	var elsewhere []asked
	var local []mesh.WorkloadID
	err = n.m.Store.View(func(tx *store.Tx) error {
		if ref == "" {
			return nil
		}
		err := tx.Each(store.AskedJobs, []byte(ref), func(key, _ []byte) (bool, error) {
			if !strings.HasPrefix(string(key), ref) {
				return false, nil
			}
			a, _, err := getAsked(tx, mesh.WorkloadID(key))
			elsewhere = append(elsewhere, a)
			return err == nil, err
		})
		if err != nil {
			return err
		}
		return tx.Each(store.Jobs, []byte(ref), func(key, _ []byte) (bool, error) {
			if !strings.HasPrefix(string(key), ref) {
				return false, nil
			}
			local = append(local, mesh.WorkloadID(key))
			return true, nil
		})
	})
	switch {
	case err != nil:
		return k, false, err
	case len(elsewhere)+len(local) > 1:
		return k, false, mesh.Errorf(mesh.Conflict, "several jobs begin with %q", ref).WithHint("give more of the ID")
	case len(local) == 1:
		return asked{Peer: n.m.Key.ID, View: wire.JobView{ID: local[0]}}, true, nil
	case len(elsewhere) == 1:
		return elsewhere[0], false, nil
	}
	return k, false, mesh.Errorf(mesh.NotFound, "there is no job %q", ref).WithHint("list them with: peerctl job ls")
}

// Job shows one job as it is now.
func (a *api) Job(ctx context.Context, ref string) (control.Job, error) {
	k, here, err := a.n.findJob(ref)
	if err != nil {
		return control.Job{}, err
	}
	if here {
		v, err := a.n.viewJob(a.n.m.Key.ID, k.View.ID)
		return a.n.showJob(v), err
	}
	if k.Settled {
		return a.n.showAsked(k, nil), nil
	}
	now, err := a.n.refresh(ctx, k)
	if mesh.KindOf(err) == mesh.Unavailable || mesh.KindOf(err) == mesh.Timeout {
		return a.n.showAsked(k, err), nil
	}
	return a.n.showAsked(now, nil), err
}

// CancelJob ends a job wherever it is.
func (a *api) CancelJob(ctx context.Context, ref string) (control.Job, error) {
	k, here, err := a.n.findJob(ref)
	if err != nil {
		return control.Job{}, err
	}
	if here {
		err = a.n.apply(ctx, a.n.cancelJob(a.n.m.Key.ID, k.View.ID))
	} else {
		err = a.n.ask(ctx, k.Peer, wire.VerbCancelJob, wire.JobRef{Job: k.View.ID}, nil)
	}
	if err != nil {
		return control.Job{}, err
	}
	return a.Job(ctx, string(k.View.ID))
}
