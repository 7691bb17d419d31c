package node

import (
	"context"
	"time"

	"peercompute/pkg/admission"
	"peercompute/pkg/control"
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
	err := a.n.m.Store.Update(ctx, func(tx *store.Tx) error { return tx.PutJSON(store.Lend, keyPause, p) })
	return control.Pause{Paused: true, Until: p.Until}, err
}

// Resume takes peers' new work again.
func (a *api) Resume(ctx context.Context) (control.Pause, error) {
	return control.Pause{}, a.n.m.Store.Update(ctx, func(tx *store.Tx) error { return tx.Delete(store.Lend, keyPause) })
}
