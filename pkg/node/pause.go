package node

import (
	"context"
	"time"

	"peercompute/pkg/admission"
	"peercompute/pkg/control"
	"peercompute/pkg/event"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

var keyPause = []byte("pause") // in store.Lend

// maxPauseFor bounds a pause with an end; one without has none.
const maxPauseFor = 365 * 24 * time.Hour

// paused is the pause in force, or nil.
func (n *Node) paused() *admission.Pause {
	var p admission.Pause
	var ok bool
	err := n.m.Store.View(func(tx *store.Tx) (err error) {
		ok, err = tx.GetJSON(store.Lend, keyPause, &p)
		return err
	})
	if err != nil {
		n.log.Error("cannot read whether lending is paused; taking it as paused", "err", err)
		return &admission.Pause{}
	}
	if !ok || !p.InForce(n.m.Now()) {
		return nil
	}
	return &p
}

// Pause refuses peers' new work; what runs goes on.
func (a *api) Pause(ctx context.Context, d time.Duration) (control.Pause, error) {
	if d < 0 || d > maxPauseFor {
		return control.Pause{}, mesh.Errorf(mesh.Invalid, "a pause of %s", d).WithHint("give a time such as 2h, or none for until you resume")
	}
	var p admission.Pause
	if d > 0 {
		p.Until = a.n.m.Now().Add(d).UTC()
	}
	err := a.n.m.Store.Update(ctx, func(tx *store.Tx) error {
		if err := tx.PutJSON(store.Lend, keyPause, p); err != nil {
			return err
		}
		return a.n.noteLocal(tx, "pause", p.Until)
	})
	if err == nil {
		a.n.m.Events.Publish(event.Event{Type: event.Admission, Name: "pause"})
	}
	return control.Pause{Paused: true, Until: p.Until}, err
}

// Resume takes peers' new work again.
func (a *api) Resume(ctx context.Context) (control.Pause, error) {
	err := a.n.m.Store.Update(ctx, func(tx *store.Tx) error {
		if err := tx.Delete(store.Lend, keyPause); err != nil {
			return err
		}
		return a.n.noteLocal(tx, "resume", time.Time{})
	})
	if err == nil {
		a.n.m.Events.Publish(event.Event{Type: event.Admission, Name: "resume"})
	}
	return control.Pause{}, err
}
