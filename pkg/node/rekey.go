package node

import (
	"context"

	"peercompute/pkg/admission"
	"peercompute/pkg/mesh"
	"peercompute/pkg/receipt"
	"peercompute/pkg/store"
	"peercompute/pkg/supervisor"
)

// rekey moves to another ID what is recorded here under one: a peer, or this node
// itself, has changed its key. What is signed keeps the IDs it was signed with.
func (n *Node) rekey(tx *store.Tx, from, to mesh.PeerID) error {
	move := func(p *mesh.PeerID) bool {
		if *p != from {
			return false
		}
		*p = to
		return true
	}
	moveRef := func(p *mesh.Publication) bool {
		if p == nil || p.Gateway != from.String() {
			return false
		}
		p.Gateway = to.String()
		return true
	}
	var records []supervisor.Record
	err := supervisor.Each(tx, func(r supervisor.Record) error {
		owner, gateway, spec := move(&r.Workload.Owner), moveRef(r.Publish), moveRef(r.Workload.Spec.Publish)
		if r.Next != nil {
			next := moveRef(r.Next.Publish)
			spec = moveRef(r.Next.Spec.Publish) || next || spec
		}
		if owner || gateway || spec {
			records = append(records, r)
		}
		return nil
	})
	for _, r := range records {
		if err == nil {
			err = supervisor.Put(tx, r)
		}
	}
	if err != nil {
		return err
	}
	elsewhere := map[string]deployed{}
	err = tx.Each(store.Remote, nil, func(k, _ []byte) (bool, error) {
		var d deployed
		_, err := tx.GetJSON(store.Remote, k, &d)
		there, owner := move(&d.Peer), move(&d.View.Workload.Owner)
		if there || owner {
			elsewhere[string(k)] = d
		}
		return true, err
	})
	for k, d := range elsewhere {
		if err == nil {
			err = tx.PutJSON(store.Remote, []byte(k), d)
		}
	}
	if err != nil {
		return err
	}
	if err := admission.MoveFuel(tx, from, to); err != nil {
		return err
	}
	if err := rekeyImages(tx, from, to); err != nil {
		return err
	}
	if err := rekeyVolumes(tx, from, to); err != nil {
		return err
	}
	if err := rekeySecrets(tx, from, to); err != nil {
		return err
	}
	if err := n.rekeyJobs(tx, from, to); err != nil {
		return err
	}
	return receipt.Rekey(tx, from, to)
}

// rekeyed makes what is held in memory follow.
func (n *Node) rekeyed(from, to mesh.PeerID) {
	n.mu.Lock()
	for k, j := range n.jobs {
		if j.owner == from {
			j.owner = to
			n.jobs[k] = j
		}
	}
	n.mu.Unlock()
	n.fuel.rekey(from, to)
	n.uptime.rekey(from, to)
	n.rekeyedJobs(from, to)
	n.gateways.poke()
}

// rekey moves what is not written down yet.
func (b *fuelBook) rekey(from, to mesh.PeerID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range []map[mesh.PeerID]uint64{b.pending, b.burnt} {
		if units, ok := m[from]; ok {
			m[to] += units
			delete(m, from)
		}
	}
	for _, r := range b.runs {
		if r.owner == from {
			r.owner = to
		}
	}
}

// goOn notes what guests have burnt that run on while the node around them begins
// anew: that is charged already, but for the last moments before.
func (b *fuelBook) goOn(ctx context.Context) error {
	guests := b.n.cfg.Runtimes[mesh.Wasm].Driver
	if guests == nil {
		return nil
	}
	tasks, err := guests.Adopt(ctx)
	if err != nil {
		return err
	}
	for _, t := range tasks {
		var w mesh.Workload
		err := b.n.m.Store.View(func(tx *store.Tx) (err error) {
			w, err = supervisor.FindRun(tx, t.ID())
			return err
		})
		st, serr := t.Stats(ctx)
		if err != nil || serr != nil || !b.counted(w) {
			continue // nobody's, ended, or not counted
		}
		b.mu.Lock()
		b.runs[t] = &burning{owner: w.Owner, job: w.Spec.Shape == mesh.Job, fuel: st.Fuel}
		b.mu.Unlock()
	}
	return nil
}
