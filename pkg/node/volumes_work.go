package node

import (
	"sync"

	"peercompute/pkg/mesh"
)

// volumeWork is the volumes that are just being filled, and whose files are on their
// way: one transfer of each owner at a time.
type volumeWork struct {
	mu       sync.Mutex
	filling  map[mesh.VolumeID]bool
	carrying map[mesh.PeerID]bool
}

// carry begins a transfer of owner's.
func (w *volumeWork) carry(owner mesh.PeerID) (done func(), err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.carrying == nil {
		w.carrying, w.filling = map[mesh.PeerID]bool{}, map[mesh.VolumeID]bool{}
	}
	if w.carrying[owner] {
		return nil, mesh.Errorf(mesh.Overloaded, "another volume of the same owner is just being backed up or restored").
			WithRule("volume.one-at-a-time").WithHint("try again once that is done")
	}
	w.carrying[owner] = true
	return sync.OnceFunc(func() {
		w.mu.Lock()
		delete(w.carrying, owner)
		w.mu.Unlock()
	}), nil
}

// fill begins to fill a volume.
func (w *volumeWork) fill(id mesh.VolumeID) (done func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.filling[id] = true
	return sync.OnceFunc(func() {
		w.mu.Lock()
		delete(w.filling, id)
		w.mu.Unlock()
	})
}

func (w *volumeWork) fills(id mesh.VolumeID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.filling[id]
}
