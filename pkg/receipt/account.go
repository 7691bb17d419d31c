package receipt

import (
	"math"
	"math/bits"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// Sum is what was used, since the account began.
type Sum struct {
	Jobs             int64  `json:"jobs"`
	Fuel             uint64 `json:"fuel"`              // units, of jobs and of services
	ContainerSeconds int64  `json:"container_seconds"` // of containers that were up
}

func (s *Sum) add(more Sum) {
	s.Jobs += more.Jobs
	fuel, over := bits.Add64(s.Fuel, more.Fuel, 0)
	if over != 0 {
		fuel = math.MaxUint64
	}
	s.Fuel = fuel
	s.ContainerSeconds += more.ContainerSeconds
}

// Account is what this node and another peer used of each other, by this node's own
// count.
type Account struct {
	Peer   mesh.PeerID `json:"peer"`
	Theirs Sum         `json:"theirs"` // the peer's machine, used by this node
	Ours   Sum         `json:"ours"`   // this machine, used by the peer

	KeptAsked int `json:"kept_asked,omitempty"` // receipts that are kept
	KeptRan   int `json:"kept_ran,omitempty"`
}

// Get is a peer's account; an empty one if there was nothing yet.
func Get(tx *store.Tx, peer mesh.PeerID) (Account, error) {
	a := Account{Peer: peer}
	_, err := tx.GetJSON(store.Accounts, []byte(peer), &a)
	return a, err
}

func put(tx *store.Tx, a Account) error { return tx.PutJSON(store.Accounts, []byte(a.Peer), a) }

// Accounts calls fn for every account.
func Accounts(tx *store.Tx, fn func(Account) error) error {
	return tx.Each(store.Accounts, nil, func(k, _ []byte) (bool, error) {
		a, err := Get(tx, mesh.PeerID(k))
		if err == nil {
			err = fn(a)
		}
		return err == nil, err
	})
}

// Charge adds to what a peer used of this machine.
func Charge(tx *store.Tx, peer mesh.PeerID, used Sum) error {
	a, err := Get(tx, peer)
	if err != nil {
		return err
	}
	a.Ours.add(used)
	return put(tx, a)
}

// Net is who used more of the other's machine, by how much fuel: theirs is set if it
// was the peer, who then owes it to this node; otherwise this node owes it. 0 is even.
func (a Account) Net() (fuel uint64, theirs bool) {
	if a.Ours.Fuel > a.Theirs.Fuel {
		return a.Ours.Fuel - a.Theirs.Fuel, true
	}
	return a.Theirs.Fuel - a.Ours.Fuel, false
}
