package receipt

import (
	"fmt"
	"math"
	"math/bits"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

// Sum is what was used, since the account began.
type Sum struct {
	Jobs             int64  `json:"jobs"`
	Fuel             uint64 `json:"fuel"`              // units, of jobs
	ContainerSeconds uint64 `json:"container_seconds"` // of containers that were up
}

func (s *Sum) add(more Sum) {
	s.Jobs += more.Jobs
	s.Fuel = plus(s.Fuel, more.Fuel)
	s.ContainerSeconds = plus(s.ContainerSeconds, more.ContainerSeconds)
}

// plus stays at the top instead of beginning anew.
func plus(a, b uint64) uint64 {
	if sum, over := bits.Add64(a, b, 0); over == 0 {
		return sum
	}
	return math.MaxUint64
}

// Account is what this node and another peer used of each other. What this node used
// is by what the peer has signed and this node did not contradict; what the peer used
// is by this node's own count, which it has signed or signs when it is asked.
type Account struct {
	Peer   mesh.PeerID `json:"peer"`
	Theirs Sum         `json:"theirs"` // the peer's machine, used by this node
	Ours   Sum         `json:"ours"`   // this machine, used by the peer

	KeptAsked int `json:"kept_asked,omitempty"` // receipts that are kept
	KeptRan   int `json:"kept_ran,omitempty"`

	Statement []byte `json:"statement,omitempty"` // that Theirs.ContainerSeconds is from
	Gone      uint64 `json:"gone,omitempty"`      // seconds for which containers were there that are gone
	Due       bool   `json:"due,omitempty"`       // some went since the peer last stated anything
	// The latest statement, if it contradicts what this node asked for, and how. It is
	// evidence and counts for nothing.
	False []byte `json:"false,omitempty"`
	Flaw  string `json:"flaw,omitempty"`
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

// Left notes that a container of this node is not on a peer any more, where it was
// for so long.
func Left(tx *store.Tx, peer mesh.PeerID, after time.Duration) error {
	a, err := Get(tx, peer)
	if err != nil {
		return err
	}
	a.Gone = plus(a.Gone, seconds(max(0, after)+perContainer))
	a.Due = true
	return put(tx, a)
}

// A runner looks every few seconds at what is up, and two clocks need not agree: by so
// much its count may be over the truth, for each container and in all.
const (
	perContainer = 10 * time.Second
	slack        = time.Minute
)

// seconds is a time in whole seconds, none below zero. Many containers' times together
// are more than a time.Duration holds.
func seconds(d time.Duration) uint64 { return uint64(max(0, d) / time.Second) }

// State counts what a peer states of this node's containers there. present is for
// how long each was there that is there now: more than they and those
// that are gone can have been up is contradicted. A lower figure than one that the peer
// signed before changes nothing.
func State(tx *store.Tx, s *wire.Statement, envelope []byte, present ...time.Duration) (flaw string, err error) {
	a, err := Get(tx, s.Runner)
	if err != nil {
		return "", err
	}
	a.Due = false
	most := plus(a.Gone, seconds(slack))
	for _, p := range present {
		most = plus(most, seconds(p))
	}
	if s.ContainerSeconds > most {
		a.Flaw = fmt.Sprintf("it states %d container seconds, of which at most %d were asked for", s.ContainerSeconds, most)
		a.False = envelope
		return a.Flaw, put(tx, a)
	}
	a.Flaw, a.False = "", nil
	if s.ContainerSeconds >= a.Theirs.ContainerSeconds {
		a.Theirs.ContainerSeconds, a.Statement = s.ContainerSeconds, envelope
	}
	return "", put(tx, a)
}

// Price is what the owner of this machine reckons with, in a currency of its own.
type Price struct {
	GFuel           float64 // of 1,000,000,000 units of fuel
	ContainerSecond float64
}

// Net is what is left when what two peers used of each other is set off. Fuel,
// seconds and amount are what the debtor used more; what it used less is negative.
type Net struct {
	Fuel             int64
	ContainerSeconds int64
	Amount           float64
	Theirs           bool // the peer owes it to this node, else this node owes it
}

// Even reports whether neither owes anything.
func (n Net) Even() bool { return n == Net{} }

// Net sets off an account. Who owes is decided by the amount where there is a price;
// without one by the fuel, or where that is even by the seconds.
func (a Account) Net(p Price) Net {
	n := Net{Fuel: minus(a.Ours.Fuel, a.Theirs.Fuel), ContainerSeconds: minus(a.Ours.ContainerSeconds, a.Theirs.ContainerSeconds)}
	n.Amount = float64(n.Fuel)/1e9*p.GFuel + float64(n.ContainerSeconds)*p.ContainerSecond
	lead := n.Amount
	if p == (Price{}) {
		if lead = float64(n.Fuel); lead == 0 {
			lead = float64(n.ContainerSeconds)
		}
	}
	if lead < 0 {
		return Net{Fuel: -n.Fuel, ContainerSeconds: -n.ContainerSeconds, Amount: -n.Amount}
	}
	n.Theirs = lead > 0
	return n
}

// minus is a-b, held to what fits.
func minus(a, b uint64) int64 {
	if a >= b {
		return int64(min(a-b, math.MaxInt64))
	}
	return -int64(min(b-a, math.MaxInt64))
}
