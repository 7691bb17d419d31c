package receipt

import (
	"errors"
	"math"
	"testing"
	"time"

	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

func TestNet(t *testing.T) {
	free, both := Price{}, Price{GFuel: 2, ContainerSecond: 0.5}
	for name, tc := range map[string]struct {
		theirs, ours Sum
		price        Price
		want         Net
	}{
		"nothing":      {Sum{}, Sum{}, free, Net{}},
		"even":         {Sum{Fuel: 5}, Sum{Fuel: 5}, both, Net{}},
		"we owe":       {Sum{Fuel: 7}, Sum{Fuel: 5}, free, Net{Fuel: 2}},
		"they owe":     {Sum{Fuel: 5}, Sum{Fuel: 7}, free, Net{Fuel: 2, Theirs: true}},
		"seconds":      {Sum{ContainerSeconds: 9}, Sum{ContainerSeconds: 2}, free, Net{ContainerSeconds: 7}},
		"fuel decides": {Sum{Fuel: 1}, Sum{ContainerSeconds: 1000}, free, Net{Fuel: 1, ContainerSeconds: -1000}},
		"the price decides": {
			Sum{Fuel: 1e9}, Sum{ContainerSeconds: 10}, both, Net{Fuel: -1e9, ContainerSeconds: 10, Amount: 3, Theirs: true},
		},
		"one is free": {Sum{Fuel: 1e9}, Sum{ContainerSeconds: 10}, Price{GFuel: 1}, Net{Fuel: 1e9, ContainerSeconds: -10, Amount: 1}},
		"all of it":   {Sum{Fuel: math.MaxUint64}, Sum{}, free, Net{Fuel: math.MaxInt64}},
		"and theirs":  {Sum{}, Sum{Fuel: math.MaxUint64}, free, Net{Fuel: math.MaxInt64, Theirs: true}},
	} {
		if got := (Account{Theirs: tc.theirs, Ours: tc.ours}).Net(tc.price); got != tc.want {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
	}
}

// What a peer states of containers counts as far as they were asked for. More is
// evidence and counts for nothing, and less than it signed before changes nothing.
func TestStatementMustFitWhatWasAskedFor(t *testing.T) {
	alice, bob := newParty(t, 1), newParty(t, 2)
	s := newStore(t)
	state := func(seconds uint64, present time.Duration) (flaw string) {
		st := &wire.Statement{Version: wire.Version, Runner: bob.id, Asker: alice.id, ContainerSeconds: seconds}
		envelope, err := wire.SealStatement(bob.key, *st)
		if err == nil {
			err = s.Update(t.Context(), func(tx *store.Tx) (err error) { flaw, err = State(tx, st, envelope, present); return err })
		}
		if err != nil {
			t.Fatal(err)
		}
		return flaw
	}
	const hour = time.Hour
	if flaw := state(3500, hour); flaw != "" || account(t, s, bob.id).Theirs.ContainerSeconds != 3500 {
		t.Errorf("an hour with a container there: %q, %+v", flaw, account(t, s, bob.id))
	}
	if flaw := state(3600+61, hour); flaw == "" {
		t.Error("more than was asked for is believed")
	}
	a := account(t, s, bob.id)
	if a.Theirs.ContainerSeconds != 3500 || a.Flaw == "" || len(a.False) == 0 {
		t.Errorf("after a false statement: %+v", a)
	}
	if flaw := state(100, hour); flaw != "" || account(t, s, bob.id).Theirs.ContainerSeconds != 3500 {
		t.Errorf("less than before: %q, %+v", flaw, account(t, s, bob.id))
	}
	// What is gone still explains what it used.
	if err := s.Update(t.Context(), func(tx *store.Tx) error { return Left(tx, bob.id, 2*hour) }); err != nil {
		t.Fatal(err)
	}
	if a := account(t, s, bob.id); !a.Due {
		t.Errorf("a last statement is not due: %+v", a)
	}
	if flaw := state(7100, 0); flaw != "" {
		t.Errorf("two hours of one that is gone: %s", flaw)
	}
	if a := account(t, s, bob.id); a.Theirs.ContainerSeconds != 7100 || a.Due || a.Flaw != "" || a.False != nil {
		t.Errorf("in the end: %+v", a)
	}
	if flaw := state(math.MaxUint64, 0); flaw == "" {
		t.Error("the largest number is believed")
	}
	// Together containers may be there for longer than a time.Duration can say.
	const long = 200 * 365 * 24 * hour
	if err := s.Update(t.Context(), func(tx *store.Tx) error { return errors.Join(Left(tx, bob.id, long), Left(tx, bob.id, long)) }); err != nil {
		t.Fatal(err)
	}
	if flaw := state(3*uint64(long/time.Second), long); flaw != "" {
		t.Errorf("three times 200 years: %s", flaw)
	}
	if flaw := state(4*uint64(long/time.Second), long); flaw == "" {
		t.Error("four times 200 years are believed")
	}
}
