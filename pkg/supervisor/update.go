package supervisor

import (
	"peercompute/pkg/admission"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// This file is what a record says of revisions. A workload keeps its ID, its name and
// its public label for ever; each revision of it runs under an ID of its own, so that
// a runtime can run two beside each other and knows nothing of revisions. The first
// runs under the workload's own.
//
// All that an update is lies in the record: the revision that serves, the one that is
// to take over, and the runs on their way out. One transaction moves the second to
// the first and the first to the third. Whatever a crash leaves running is found
// again under one of them, or is ended.

// Next is a revision that is to take over once it is ready.
type Next struct {
	Run      mesh.WorkloadID   `json:"run"`
	Revision int               `json:"revision"`
	Spec     mesh.Spec         `json:"spec"`
	Again    bool              `json:"again,omitempty"`    // it ran here before (see mesh.Workload)
	Publish  *mesh.Publication `json:"publish,omitempty"`  // the wish for a public name that comes with it; nil = as it is
	Recreate bool              `json:"recreate,omitempty"` // what serves is stopped before it starts
	Last     mesh.Status       `json:"last"`               // how it failed, or zero
}

// Retired is a run that no new connection reaches.
type Retired struct {
	Run   mesh.WorkloadID `json:"run"`
	Spec  mesh.Spec       `json:"spec"`
	Ended bool            `json:"ended,omitempty"` // nothing of it executes: only what it left is to be removed
}

// MaxRetired bounds the runs on their way out, of one workload.
const MaxRetired = 8

// pending reports whether the revision may still take over.
func (n *Next) pending() bool { return n != nil && !n.Last.State.Final() }

// Current is the run that serves.
func (r Record) Current() mesh.WorkloadID {
	if r.Run == "" {
		return r.Workload.ID
	}
	return r.Run
}

// Serving is the number of the revision that serves.
func (r Record) Serving() int { return max(r.Revision, 1) }

// Following is the number that the next revision will have.
func (r Record) Following() int { return max(r.Given, r.Serving()) + 1 }

// With is the workload with another spec.
func (r Record) With(s mesh.Spec) mesh.Workload {
	w := r.Workload
	w.Spec = s
	return w
}

// Updating reports whether a revision is on its way to take over.
func (r Record) Updating() bool { return r.Desired == Run && r.Next.pending() }

// RunOf is the run of a revision that something is still known of: the one that serves
// (also 0), or the next. mesh.NotFound for any other.
func (r Record) RunOf(revision int) (mesh.WorkloadID, mesh.Runtime, error) {
	switch {
	case revision == 0 || revision == r.Serving():
		return r.Current(), r.Workload.Spec.Runtime, nil
	case r.Next != nil && r.Next.Revision == revision:
		return r.Next.Run, r.Next.Spec.Runtime, nil
	}
	return "", "", mesh.Errorf(mesh.NotFound, "nothing is left of revision %d of %s", revision, r.Workload.Spec.Name)
}

// Supersede makes n the revision that is to take over, and gives it its number. A
// former one that has not taken over is ended. Where nothing serves there is nothing to
// wait for: n takes over at once.
func (r *Record) Supersede(n Next) int {
	if old := r.Next; old != nil {
		r.Retired = append(r.Retired, Retired{Run: old.Run, Spec: old.Spec, Ended: !old.pending()})
	}
	r.Given = r.Following()
	n.Revision = r.Given
	r.Next = &n
	if !r.Holds() {
		r.takeOver()
		r.Desired = Run
	}
	return n.Revision
}

// AddTo counts what a workload holds: what serves, what is to take over, and what is
// on its way out. An update that stops the one before it starts the other holds the
// larger of the two.
func (r Record) AddTo(h *admission.Held) {
	var serves, next admission.Held
	if r.Holds() {
		serves.Add(r.Workload.Spec)
	}
	if r.Updating() {
		next.Add(r.Next.Spec)
	}
	if r.Updating() && r.Next.Recreate {
		h.Join(serves.Max(next))
	} else {
		h.Join(serves)
		h.Join(next)
	}
	for _, old := range r.Retired {
		if !old.Ended {
			h.Add(old.Spec)
		}
	}
}

// role is what a run is to its workload.
type role int

const (
	gone    role = iota // nothing: it is to be ended
	serving             // it is the one that is reached
	coming              // it takes over once it is ready
	leaving             // it is ended once its connections are
)

func (r Record) role(run mesh.WorkloadID) role {
	switch {
	case run == r.Current():
		return serving
	case r.Next != nil && run == r.Next.Run:
		return coming
	}
	for _, old := range r.Retired {
		if old.Run == run {
			return leaving
		}
	}
	return gone
}

// yields reports whether what serves must make room for the next revision.
func (r Record) yields() bool { return r.Updating() && r.Next.Recreate }

// wants reports whether a run is to be started, or to go on.
func (r Record) wants(run mesh.WorkloadID) bool {
	switch r.role(run) {
	case serving:
		return r.Holds() && !r.yields() && r.Restart == r.Restarted
	case coming:
		return r.Updating()
	}
	return false
}

// runs lists all that the record knows of, with the runtime of each.
func (r Record) runs() map[mesh.WorkloadID]mesh.Runtime {
	out := map[mesh.WorkloadID]mesh.Runtime{r.Current(): r.Workload.Spec.Runtime}
	if r.Next != nil {
		out[r.Next.Run] = r.Next.Spec.Runtime
	}
	for _, old := range r.Retired {
		out[old.Run] = old.Spec.Runtime
	}
	return out
}

// work is the workload as the runtime of a run is to see it.
func (r Record) work(run mesh.WorkloadID) mesh.Workload {
	w := r.Workload
	switch r.role(run) {
	case coming:
		w.Spec, w.Again = r.Next.Spec, r.Next.Again
	case leaving:
		for _, old := range r.Retired {
			if old.Run == run {
				w.Spec = old.Spec
			}
		}
	}
	w.ID = run
	return w
}

// Specs lists the specs of all that the record runs or may run.
func (r Record) Specs() []mesh.Spec {
	out := []mesh.Spec{r.Workload.Spec}
	if r.Next != nil {
		out = append(out, r.Next.Spec)
	}
	for _, old := range r.Retired {
		out = append(out, old.Spec)
	}
	return out
}

// FindRun is the workload that a run belongs to, as its runtime sees it.
func FindRun(tx *store.Tx, run mesh.WorkloadID) (w mesh.Workload, err error) {
	if r, err := Get(tx, run); err == nil && r.role(run) != gone {
		return r.work(run), nil
	}
	found := false
	err = Each(tx, func(r Record) error {
		if !found && r.role(run) != gone {
			w, found = r.work(run), true
		}
		return nil
	})
	if err == nil && !found {
		err = mesh.Errorf(mesh.NotFound, "no workload here has the run %s", run)
	}
	return w, err
}

// takeOver makes the next revision the one that serves.
func (r *Record) takeOver() {
	n := r.Next
	r.Retired = append(r.Retired, Retired{Run: r.Current(), Spec: r.Workload.Spec, Ended: !r.Holds()})
	r.Workload.Spec, r.Workload.Again = n.Spec, n.Again
	if n.Publish != nil {
		r.Publish = n.Publish
	}
	r.Run, r.Revision, r.Answered, r.Next, r.Last = n.Run, n.Revision, false, nil, mesh.Status{}
}

// drop forgets a run that is ended.
func (r *Record) drop(run mesh.WorkloadID) {
	if r.Next != nil && r.Next.Run == run {
		r.Next = nil
	}
	var left []Retired
	for _, old := range r.Retired {
		if old.Run != run {
			left = append(left, old)
		}
	}
	r.Retired = left
}
