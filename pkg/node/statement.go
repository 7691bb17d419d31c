package node

import (
	"context"
	"sync"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/receipt"
	"peercompute/pkg/request"
	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

// This file exchanges statements of how long containers were up: this node signs what
// it counted of its peers', and holds what they sign of its own against what it asked for.

func (n *Node) onStatement(_ context.Context, c *request.Call) (request.Reply, error) {
	var in wire.GetStatement
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return request.Reply{}, err
	}
	var account receipt.Account
	err := n.m.Store.View(func(tx *store.Tx) (err error) {
		account, err = receipt.Get(tx, c.From)
		return err
	})
	if err != nil {
		return request.Reply{}, err
	}
	envelope, err := wire.SealStatement(n.m.Key.Private, wire.Statement{
		Version: wire.Version, Runner: n.m.Key.ID, Asker: c.From, Time: n.m.Now().UnixMilli(), ContainerSeconds: account.Ours.ContainerSeconds,
	})
	return request.Reply{Body: wire.StatementReply{Statement: envelope}}, err
}

// askStatements asks the peers on which this node has containers, or had since it
// last asked, all at once. One that does not answer is asked another time.
func (n *Node) askStatements(ctx context.Context) error {
	due := map[mesh.PeerID]bool{}
	known, err := n.remembered()
	if err != nil {
		return err
	}
	for _, d := range known {
		due[d.Peer] = due[d.Peer] || d.View.Workload.Spec.Runtime == mesh.Container
	}
	err = n.m.Store.View(func(tx *store.Tx) error {
		return receipt.Accounts(tx, func(a receipt.Account) error {
			due[a.Peer] = due[a.Peer] || a.Due
			return nil
		})
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for p, is := range due {
		if _, trusted := n.m.Trust.Get(p); !is || !trusted {
			continue
		}
		wg.Go(func() {
			if err := n.askStatement(ctx, p); err != nil {
				n.log.Debug("a peer states nothing of our containers there", "peer", p, "err", err)
			}
		})
	}
	wg.Wait()
	return nil
}

func (n *Node) askStatement(ctx context.Context, p mesh.PeerID) error {
	var reply wire.StatementReply
	if err := n.ask(ctx, p, wire.VerbStatement, wire.GetStatement{}, &reply); err != nil {
		return err
	}
	s, err := wire.OpenStatement(reply.Statement)
	if err != nil {
		return err
	}
	if s.Runner != p || !n.m.Mine(s.Asker) {
		return mesh.Errorf(mesh.Forged, "%s's statement is about others", n.m.Trust.Name(p)).WithRule("statement.parties")
	}
	var flaw string
	err = n.m.Store.Update(ctx, func(tx *store.Tx) error {
		var present []time.Duration
		err := eachDeployed(tx, func(d deployed) {
			if d.Peer == p && d.View.Workload.Spec.Runtime == mesh.Container {
				present = append(present, d.present(n.m.Now()))
			}
		})
		if err == nil {
			flaw, err = receipt.State(tx, s, reply.Statement, present...)
		}
		return err
	})
	if flaw != "" {
		n.log.Warn("a peer's statement of our containers there does not fit", "peer", p, "flaw", flaw)
	}
	return err
}
