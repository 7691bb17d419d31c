package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

// revise plays the revisions of a workload: where one of that name serves already, a
// deploy makes the next. It returns the one that served before, if any.
func (n *fakeNode) revise(w *control.Workload, note string) (before *control.Workload) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, old := range n.workloads {
		if old.ID == w.ID && !old.State.Final() {
			before = &old
		}
	}
	if n.revisions == nil {
		n.revisions = map[mesh.WorkloadID][]control.Revision{}
	}
	all := n.revisions[w.ID]
	w.Revision = len(all) + 1
	n.revisions[w.ID] = append(all, control.Revision{
		Number: w.Revision, Image: w.Image, Digest: "sha256:0123456789abcdef", By: self, ByID: w.OwnerID, Time: time.Now(), Outcome: "serving", Note: note,
	})
	if before != nil {
		n.revisions[w.ID][before.Revision-1].Outcome = "replaced"
	}
	return before
}

// unchanged plays an update that failed.
func (n *fakeNode) unchanged(before, w control.Workload, why string) (control.Workload, *control.Error) {
	before.Update = &control.Update{Revision: w.Revision, Status: mesh.Status{State: mesh.Failed, Reason: why}}
	n.store(before)
	n.mu.Lock()
	defer n.mu.Unlock()
	all := n.revisions[w.ID]
	all[w.Revision-1].Outcome, all[w.Revision-1].Failure = "failed", why
	all[before.Revision-1].Outcome = "serving"
	return before, asControl(mesh.Errorf(mesh.Unavailable, "%s stays at revision %d: revision %d is not up: %s", w.Name, before.Revision, w.Revision, why).
		WithHint("what became of each: peerctl history %s", w.Name))
}

func (n *fakeNode) history(r *http.Request) (any, error) {
	i, err := n.find(r)
	if err != nil {
		return nil, err
	}
	return n.revisions[n.workloads[i].ID], nil
}

func (n *fakeNode) rollback(w http.ResponseWriter, r *http.Request) {
	var b control.Rollback
	if err := json.NewDecoder(r.Body).Decode(&b); err != nil {
		refuse(w, err)
		return
	}
	n.mu.Lock()
	i, err := n.find(r)
	if err != nil {
		n.mu.Unlock()
		refuse(w, err)
		return
	}
	work := n.workloads[i]
	all := n.revisions[work.ID]
	if b.To == 0 {
		b.To = work.Revision - 1
	}
	if b.To < 1 || b.To > len(all) {
		n.mu.Unlock()
		refuse(w, mesh.Errorf(mesh.NotFound, "revision %d of %s is not remembered", b.To, work.Name))
		return
	}
	work.Image = all[b.To-1].Image
	n.mu.Unlock()
	n.revise(&work, fmt.Sprintf("rollback to %d", b.To))
	n.store(work)
	_ = json.NewEncoder(w).Encode(control.DeployEvent{Workload: &work, Done: true})
}
