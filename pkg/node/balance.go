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
func (a *api) Balance(_ context.Context, ref string) ([]control.Balance, error) {
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
	out := []control.Balance{}
	err := a.n.m.Store.View(func(tx *store.Tx) error {
		return receipt.Accounts(tx, func(acc receipt.Account) error {
			used := acc.Theirs.Jobs > 0 || acc.Ours.Jobs > 0
			if acc.Peer == self || !used || only != "" && acc.Peer != only {
				return nil
			}
			b := control.Balance{
				Peer: a.n.m.Trust.Name(acc.Peer), PeerID: acc.Peer,
				There: control.Used{Jobs: acc.Theirs.Jobs, Fuel: acc.Theirs.Fuel},
				Here:  control.Used{Jobs: acc.Ours.Jobs, Fuel: acc.Ours.Fuel},
			}
			var theirs bool
			b.Net, theirs = acc.Net()
			switch {
			case b.Net == 0:
			case theirs:
				b.Debtor = b.Peer
			default:
				b.Debtor = a.n.m.Trust.Name(self)
			}
			out = append(out, b)
			return nil
		})
	})
	slices.SortFunc(out, func(x, y control.Balance) int {
		return cmp.Or(strings.Compare(x.Peer, y.Peer), strings.Compare(string(x.PeerID), string(y.PeerID)))
	})
	return out, err
}
