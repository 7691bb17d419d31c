package node

import (
	"context"
	"strings"
	"sync"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/wire"
)

// This file finds workloads wherever they are.

const listTimeout = 5 * time.Second

func (a *api) all(ctx context.Context, peer string) ([]deployed, error) {
	self := a.n.m.Key.ID
	var out []deployed
	ask := map[mesh.PeerID]bool{}
	known, err := a.n.remembered()
	if err != nil {
		return nil, err
	}
	if peer != "" {
		p, err := a.where(peer)
		if err != nil {
			return nil, err
		}
		ask[p] = true
	} else {
		ask[self] = true
		for _, d := range known {
			if a.n.m.Trust.Name(d.Peer) == d.Peer.String() { // removed here: it cannot be asked any more
				a.dropStale(ctx, d)
				continue
			}
			ask[d.Peer] = true
		}
	}
	if ask[self] {
		views, err := a.n.list(self)
		if err != nil {
			return nil, err
		}
		for _, v := range views {
			out = append(out, deployed{Peer: self, View: v})
		}
		delete(ask, self)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for p := range ask {
		wg.Go(func() {
			got := a.listRemote(ctx, p, known)
			mu.Lock()
			defer mu.Unlock()
			out = append(out, got...)
		})
	}
	wg.Wait()
	return out, nil
}

func (a *api) listRemote(ctx context.Context, p mesh.PeerID, known []deployed) []deployed {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	var reply wire.ListReply
	err := a.n.ask(ctx, p, wire.VerbList, wire.List{}, &reply)
	if err != nil {
		a.n.log.Debug("cannot list a peer's workloads", "peer", p, "err", err)
	}
	var out []deployed
	if err == nil {
		there := map[mesh.WorkloadID]bool{}
		for _, v := range reply.Workloads {
			out = append(out, deployed{Peer: p, View: v})
			there[v.Workload.ID] = true
		}
		for _, d := range known {
			if d.Peer == p && !there[d.View.Workload.ID] && !reply.Truncated {
				a.dropStale(ctx, d)
			}
		}
		return out
	}
	for _, d := range known {
		if d.Peer == p {
			d.View.Status = mesh.Status{State: mesh.Unknown, Reason: mesh.AsError(err).Msg, Since: d.View.Status.Since}
			out = append(out, d)
		}
	}
	return out
}

// dropStale forgets a workload that its peer does not know any more.
func (a *api) dropStale(ctx context.Context, d deployed) {
	// One that was accepted a moment ago may be missing from a list made before.
	if a.n.m.Now().Sub(d.View.Workload.Created) < listTimeout || a.n.m.KeyChanging() {
		return
	}
	if err := a.n.forgetRemote(ctx, d.View.Workload.ID); err != nil {
		a.n.log.Debug("cannot forget a workload", "workload", d.View.Workload.ID, "err", err)
	}
}

// find resolves a workload's name or unique ID prefix.
func (a *api) find(ctx context.Context, ref, peer string) (deployed, error) {
	all, err := a.all(ctx, peer)
	if err != nil {
		return deployed{}, err
	}
	var byName, byID []deployed
	for _, d := range all {
		if d.View.Workload.Spec.Name == ref {
			byName = append(byName, d)
		}
		if ref != "" && strings.HasPrefix(string(d.View.Workload.ID), ref) {
			byID = append(byID, d)
		}
	}
	found := byName
	if len(found) == 0 {
		found = byID
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return deployed{}, mesh.Errorf(mesh.NotFound, "no workload is called %q", ref).WithHint("list them with: peerctl ps")
	}
	var where []string
	for _, d := range found {
		where = append(where, string(d.View.Workload.ID)+" on "+a.n.m.Trust.Name(d.Peer))
	}
	return deployed{}, mesh.Errorf(mesh.Conflict, "%q could be any of: %s", ref, strings.Join(where, ", ")).
		WithHint("give more of the ID, or --peer")
}

// locate is find for those who know the whole ID and the peer already: it asks nobody.
// Whether the workload is there shows when something is done to it.
func (a *api) locate(ctx context.Context, ref, peer string) (deployed, error) {
	id, err := mesh.ParseWorkloadID(ref)
	if err != nil || peer == "" {
		return a.find(ctx, ref, peer)
	}
	p, err := a.where(peer)
	return deployed{Peer: p, View: wire.View{Workload: mesh.Workload{ID: id}}}, err
}
