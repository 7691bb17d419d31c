package admission

import (
	"math/bits"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// This file counts the fuel that peers burn in a day. A day ends at midnight UTC.
//
// What a job may burn at most is held from its admission on, in the same
// transaction, and becomes what it really burnt when it ends; what a crash leaves
// held counts as burnt, because nobody can say what it was. Services are charged
// as they go.

// account is what a peer has burnt and holds.
type account struct {
	Day   string            `json:"day"` // UTC, 2006-01-02
	Burnt uint64            `json:"burnt"`
	Held  map[string]uint64 `json:"held,omitempty"` // job → units it may burn at most
}

// Burnt reports what a peer has burnt today, and when the next day begins. What its
// jobs hold is not in it.
func Burnt(tx *store.Tx, p mesh.PeerID, now time.Time) (units uint64, opens time.Time, err error) {
	a, err := readAccount(tx, p, now)
	return a.Burnt, nextDay(now), err
}

func nextDay(now time.Time) time.Time {
	y, m, d := now.UTC().Date()
	return time.Date(y, m, d+1, 0, 0, 0, 0, time.UTC)
}

// readAccount is p's account as of today. A new day begins with nothing burnt. If
// the clock was set back, the count goes on as that earlier day's, so that one wrong
// clock locks no peer out; the day after it is then given once more.
func readAccount(tx *store.Tx, p mesh.PeerID, now time.Time) (a account, err error) {
	if _, err = tx.GetJSON(store.Fuel, []byte(p), &a); err != nil {
		return a, err
	}
	today := now.UTC().Format(time.DateOnly)
	if a.Day < today {
		a.Burnt = 0
	}
	a.Day = today
	if a.Held == nil {
		a.Held = map[string]uint64{}
	}
	return a, nil
}

func writeAccount(tx *store.Tx, p mesh.PeerID, a account) error {
	if a.Burnt == 0 && len(a.Held) == 0 {
		return tx.Delete(store.Fuel, []byte(p))
	}
	return tx.PutJSON(store.Fuel, []byte(p), a)
}

// HoldFuel sets aside what a job may burn. Decide has said that it is there.
func HoldFuel(tx *store.Tx, p mesh.PeerID, job string, units uint64, now time.Time) error {
	a, err := readAccount(tx, p, now)
	if err != nil {
		return err
	}
	a.Held[job] = units
	return writeAccount(tx, p, a)
}

// SettleFuel turns what a job held into what it burnt, and returns what is burnt
// today in all. A second time changes nothing.
func SettleFuel(tx *store.Tx, p mesh.PeerID, job string, burnt uint64, now time.Time) (uint64, error) {
	a, err := readAccount(tx, p, now)
	if err != nil {
		return 0, err
	}
	if _, held := a.Held[job]; !held {
		return a.Burnt, nil
	}
	delete(a.Held, job)
	a.Burnt = add(a.Burnt, burnt)
	return a.Burnt, writeAccount(tx, p, a)
}

// BurnFuel charges what a service has burnt, and returns what is burnt today in all.
func BurnFuel(tx *store.Tx, p mesh.PeerID, units uint64, now time.Time) (uint64, error) {
	a, err := readAccount(tx, p, now)
	if err != nil {
		return 0, err
	}
	a.Burnt = add(a.Burnt, units)
	return a.Burnt, writeAccount(tx, p, a)
}

// SettleCrash is for the start of a node, when no job runs: whatever is held was
// left by a crash and counts as burnt. Accounts of past days go. It returns what
// each peer has burnt today, and how many jobs were left.
func SettleCrash(tx *store.Tx, now time.Time) (burnt map[mesh.PeerID]uint64, jobs int, err error) {
	burnt = map[mesh.PeerID]uint64{}
	var peers []mesh.PeerID
	err = tx.Each(store.Fuel, nil, func(k, _ []byte) (bool, error) {
		peers = append(peers, mesh.PeerID(k))
		return true, nil
	})
	for _, p := range peers {
		if err != nil {
			break
		}
		var a account
		if a, err = readAccount(tx, p, now); err == nil {
			for _, units := range a.Held {
				a.Burnt = add(a.Burnt, units)
				jobs++
			}
			a.Held = nil
			if a.Burnt > 0 {
				burnt[p] = a.Burnt
			}
			err = writeAccount(tx, p, a)
		}
	}
	return burnt, jobs, err
}

// add is a sum that stays at the top instead of beginning anew.
func add(a, b uint64) uint64 {
	if sum, over := bits.Add64(a, b, 0); over == 0 {
		return sum
	}
	return 1<<64 - 1
}

// MoveFuel moves a peer's account to another ID: the peer has changed its key.
func MoveFuel(tx *store.Tx, from, to mesh.PeerID) error {
	var was, have account
	ok, err := tx.GetJSON(store.Fuel, []byte(from), &was)
	if !ok || err != nil {
		return err
	}
	if _, err := tx.GetJSON(store.Fuel, []byte(to), &have); err != nil {
		return err
	}
	if have.Day > was.Day {
		was.Day, was.Burnt = have.Day, have.Burnt
	} else if have.Day == was.Day {
		was.Burnt = add(was.Burnt, have.Burnt)
	}
	if was.Held == nil {
		was.Held = map[string]uint64{}
	}
	for job, units := range have.Held {
		was.Held[job] = units
	}
	if err := tx.Delete(store.Fuel, []byte(from)); err != nil {
		return err
	}
	return writeAccount(tx, to, was)
}
