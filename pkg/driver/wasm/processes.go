package wasm

import (
	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

var _ driver.Processes = (*Driver)(nil)

// Processes implements driver.Processes: one worker for each owner with guests.
func (d *Driver) Processes() map[int]mesh.PeerID {
	d.mu.Lock()
	owners := make(map[mesh.PeerID]*owner, len(d.owners))
	for id, o := range d.owners {
		owners[id] = o
	}
	d.mu.Unlock()
	out := map[int]mesh.PeerID{}
	for id, o := range owners {
		o.mu.Lock()
		p := o.proc
		o.mu.Unlock()
		if p != nil && !p.isDead() {
			out[p.cmd.Process.Pid] = id
		}
	}
	return out
}
