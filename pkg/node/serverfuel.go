package node

import (
	"context"
	"fmt"
	"time"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// This file keeps what servers have burnt of their own fuel of the day, so that a run
// that begins anew goes on from there. It is looked at and written down every
// meterEach, and when a run ends: the death of a worker or of peerd makes no more than
// that forgotten.

// serverFuel is what a run of a server has burnt on a day.
type serverFuel struct {
	Day   string `json:"day"` // UTC, 2006-01-02
	Units uint64 `json:"units"`
}

// ServerFuel is what a run of a server has burnt today, as it is on disk.
func ServerFuel(tx *store.Tx, run mesh.WorkloadID, now time.Time) (uint64, error) {
	var f serverFuel
	if _, err := tx.GetJSON(store.ServerFuel, []byte(run), &f); err != nil || f.Day != now.UTC().Format(time.DateOnly) {
		return 0, err
	}
	return f.Units, nil
}

// burnServer adds to what a run of a server has burnt today.
func burnServer(tx *store.Tx, run mesh.WorkloadID, units uint64, now time.Time) error {
	before, err := ServerFuel(tx, run, now)
	if err != nil {
		return err
	}
	f := serverFuel{now.UTC().Format(time.DateOnly), max(before, before+units)}
	return tx.PutJSON(store.ServerFuel, []byte(run), f)
}

// forgetServers drops what was burnt on other days.
func (b *fuelBook) forgetServers(ctx context.Context) error {
	today := b.today()
	err := b.n.m.Store.Update(ctx, func(tx *store.Tx) error {
		var old [][]byte
		err := tx.Each(store.ServerFuel, nil, func(k, _ []byte) (bool, error) {
			var f serverFuel
			_, err := tx.GetJSON(store.ServerFuel, k, &f)
			if f.Day != today {
				old = append(old, append([]byte(nil), k...))
			}
			return err == nil, err
		})
		for _, k := range old {
			if err == nil {
				err = tx.Delete(store.ServerFuel, k)
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot forget what servers burnt on other days: %w", err)
	}
	return nil
}

// counted reports whether what a workload burns is counted while it runs.
func (b *fuelBook) counted(w mesh.Workload) bool { return b.lent(w) || isServer(w) }

func isServer(w mesh.Workload) bool {
	return w.Spec.Runtime == mesh.Wasm && w.Spec.Shape == mesh.Server
}

// ended counts the last of a run.
func (b *fuelBook) ended(w mesh.Workload, t driver.Task) {
	if !b.counted(w) {
		return
	}
	b.ask(context.Background(), w, t)
	b.mu.Lock()
	delete(b.runs, t)
	b.mu.Unlock()
	if isServer(w) { // the next run begins with what this one has left
		b.flush(context.Background())
	}
}
