package supervisor

import (
	"context"
	"testing"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// again asks for a new run, as a request does.
func again(t *testing.T, st *store.Store) {
	t.Helper()
	err := st.Update(context.Background(), func(tx *store.Tx) error {
		r, err := Get(tx, id)
		if err != nil {
			return err
		}
		r.Again()
		if !r.Holds() {
			t.Error("what is to run again is not counted yet")
		}
		return Put(tx, r)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// wantStarts waits until it was started n times and runs.
func (l *life) wantStarts(t *testing.T, w *world, n int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		if st, _, _ := l.Status(id); w.starts(id) == n && st.State == mesh.Running {
			return
		}
		if w.starts(id) > n || time.Now().After(deadline) {
			st, _, _ := l.Status(id)
			t.Fatalf("it was started %d times and is %s, want %d and running", w.starts(id), st.State, n)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestRestart(t *testing.T) {
	st, w := openStore(t), newWorld()
	l := live(t, st, w)
	put(t, st, record(mesh.RestartNo))
	l.Kick(id)
	l.wantStarts(t, w, 1)
	again(t, st)
	l.Kick(id)
	l.wantStarts(t, w, 2)
	// One that was stopped is started too.
	l.change(t, st, Stop)
	l.want(t, mesh.Stopped)
	again(t, st)
	l.Kick(id)
	l.wantStarts(t, w, 3)
	// Looked at once more, nothing is left to do.
	l.Kick(id)
	l.wantStarts(t, w, 3)
	var r Record
	if err := st.View(func(tx *store.Tx) (err error) { r, err = Get(tx, id); return err }); err != nil || r.Restart != 2 || r.Restarted != 2 {
		t.Errorf("afterwards %d were asked for and %d begun, %v", r.Restart, r.Restarted, err)
	}
}

// What was asked for before a crash is done once after it.
func TestRestartAfterACrash(t *testing.T) {
	st, w := openStore(t), newWorld()
	put(t, st, record(mesh.RestartNo))
	again(t, st)
	l := live(t, st, w)
	l.wantStarts(t, w, 1)
}
