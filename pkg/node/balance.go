package node

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
	"peercompute/pkg/receipt"
	"peercompute/pkg/store"
)

// Balance shows the accounts that receipts were counted in.
func (a *api) Balance(ctx context.Context, ref string) ([]control.Balance, error) {
	self := a.n.m.Key.ID
	var only mesh.PeerID
	if ref != "" {
		p, err := a.where(ref)
		if err != nil {
			return nil, err
		}
		if p == self {
			return nil, mesh.Errorf(mesh.Invalid, "this machine owes itself nothing").WithHint("name a peer, or leave out --peer to see all")
		}
		only = p
	}
	if err := a.n.askStatements(ctx); err != nil {
		return nil, err
	}
	policy, _, _ := a.n.lending.now()
	price := receipt.Price{GFuel: policy.PriceGFuel, ContainerSecond: policy.PriceContainerSecond}
	out := []control.Balance{}
	err := a.n.m.Store.View(func(tx *store.Tx) error {
		return receipt.Accounts(tx, func(acc receipt.Account) error {
			used := acc.Theirs != (receipt.Sum{}) || acc.Ours != (receipt.Sum{}) || acc.Flaw != ""
			if acc.Peer == self || !used || only != "" && acc.Peer != only {
				return nil
			}
			out = append(out, a.n.balance(acc, price))
			return nil
		})
	})
	slices.SortFunc(out, func(x, y control.Balance) int {
		return cmp.Or(strings.Compare(x.Peer, y.Peer), strings.Compare(string(x.PeerID), string(y.PeerID)))
	})
	return out, err
}

func (n *Node) balance(acc receipt.Account, price receipt.Price) control.Balance {
	net := acc.Net(price)
	b := control.Balance{
		Peer: n.m.Trust.Name(acc.Peer), PeerID: acc.Peer, There: control.Used(acc.Theirs), Here: control.Used(acc.Ours),
		NetFuel: net.Fuel, NetContainerSeconds: net.ContainerSeconds, Flaw: acc.Flaw,
	}
	switch {
	case net.Even():
	case net.Theirs:
		b.Debtor = b.Peer
	default:
		b.Debtor = n.m.Trust.Name(n.m.Key.ID)
	}
	if price != (receipt.Price{}) {
		b.Amount = &net.Amount
	}
	return b
}
