package jobs

import (
	"slices"
	"testing"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// A peer changes its key while it has a job that runs, some that wait and one that is
// done: all are the new key's, in their order, and nothing is left under the old one.
func TestJobsFollowTheirOwnersKey(t *testing.T) {
	r := newRig(t, t.TempDir(), 2, Limits{})
	defer r.closeStore()
	r.start()
	done := r.submit("old", "done")
	r.done(done)
	let := r.blocked()
	running := r.submit("old", "running")
	r.until(running, "running", func(v View) bool { return v.State == Running })
	var waiting []mesh.WorkloadID
	for i, key := range []string{"first", "second", "third"} {
		j := r.job("old", key)
		j.Key = key
		j, err := r.trySubmit(j)
		if err != nil {
			t.Fatal(i, err)
		}
		waiting = append(waiting, j.ID)
	}
	other := r.submit("other", "others")

	if err := r.store.Update(t.Context(), func(tx *store.Tx) error { return Rekey(tx, owner("old"), owner("new")) }); err != nil {
		t.Fatal(err)
	}
	r.Rekeyed(owner("old"), owner("new"))
	for _, id := range append([]mesh.WorkloadID{done, running}, waiting...) {
		if v := r.view(id); v.Owner != owner("new") {
			t.Errorf("job %s still is the old key's", v.Spec.Name)
		}
	}
	for i, id := range waiting {
		if v := r.view(id); v.State != Queued || v.Ahead != i {
			t.Errorf("job %d of the queue: %s, %d ahead", i, v.State, v.Ahead)
		}
	}
	if v := r.view(other); v.Owner != owner("other") {
		t.Error("another owner's job has moved")
	}
	err := r.store.View(func(tx *store.Tx) error {
		for _, part := range []byte{indexQueued, indexDone, indexKey} {
			if n, err := count(tx, of(part, owner("old"))); err != nil || n != 0 {
				t.Errorf("part %c of the index has %d places under the old key, %v", part, n, err)
			}
		}
		if id, ok := Keyed(tx, owner("new"), "second"); !ok || id != waiting[1] {
			t.Errorf("the key of a job leads to %s, %t", id, ok)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	r.Queue.mu.Lock()
	if r.Queue.held[owner("old")] != 0 || r.Queue.held[owner("new")] != 1 {
		t.Errorf("runs are counted as %v", r.Queue.held)
	}
	r.Queue.mu.Unlock()
	r.mu.Unlock()
	let()
	for _, id := range append([]mesh.WorkloadID{running, other}, waiting...) {
		if v := r.done(id); v.Exit.Code != 0 || v.Attempts != 1 {
			t.Errorf("%s: %+v, %d runs", v.Spec.Name, v.Exit, v.Attempts)
		}
	}
	r.end()
	if err := r.store.View(func(tx *store.Tx) error {
		all, err := r.List(tx, func(j Job) bool { return j.Owner == owner("new") })
		if len(all) != 5 || slices.ContainsFunc(all, func(v View) bool { return v.State != Done }) {
			t.Errorf("at the end: %+v", all)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if len(r.Queue.held) != 0 {
		t.Errorf("runs that are over are counted: %v", r.Queue.held)
	}
}

// A key that both IDs have used stays that of the new one's job, and both jobs are kept.
func TestJobsWithTheSameKeyAreKept(t *testing.T) {
	r := newRig(t, t.TempDir(), 2, Limits{})
	defer r.closeStore()
	var ids []mesh.WorkloadID
	for _, who := range []string{"old", "new"} {
		j := r.job(who, who)
		j.Key = "same"
		j, err := r.trySubmit(j)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, j.ID)
	}
	for range 2 { // the second time nothing is left to do
		if err := r.store.Update(t.Context(), func(tx *store.Tx) error { return Rekey(tx, owner("old"), owner("new")) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.store.View(func(tx *store.Tx) error {
		if id, ok := Keyed(tx, owner("new"), "same"); !ok || id != ids[1] {
			t.Errorf("the key leads to %s, %t", id, ok)
		}
		n, err := count(tx, of(indexQueued, owner("new")))
		if n != 2 {
			t.Errorf("%d jobs wait", n)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
