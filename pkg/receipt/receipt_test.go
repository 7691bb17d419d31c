package receipt

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"math"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

type party struct {
	key crypto.PrivKey
	id  mesh.PeerID
}

func newParty(t testing.TB, seed byte) party {
	t.Helper()
	k, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return party{k, id}
}

func newStore(t testing.TB) *store.Store {
	t.Helper()
	path := filepath.Join(t.TempDir(), store.FileName)
	if err := store.Create(path); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// payload is the receipt of the n-th run by runner for asker.
func payload(runner, asker mesh.PeerID, n int) wire.Receipt {
	var request wire.Digest
	binary.BigEndian.PutUint64(request[:], uint64(n))
	return wire.Receipt{
		Version: wire.Version, Runner: runner, Asker: asker, Request: request, Job: mesh.NewWorkloadID(request),
		Module: DigestOf([]byte("module")), Spec: DigestOf([]byte("spec")), Seed: DigestOf([]byte("seed")),
		Input: DigestOf([]byte("in")), InputSize: 2, Output: DigestOf([]byte("out")), OutputSize: 3, Log: DigestOf(nil), Record: DigestOf(nil),
		Fuel: 1000, Schedule: "fuel/1", PeakMemory: 65536, Started: 1, Ended: 2,
	}
}

func sealed(t testing.TB, by party, r wire.Receipt) []byte {
	t.Helper()
	b, err := wire.SealReceipt(by.key, r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func add(t testing.TB, s *store.Store, rec Record) error {
	t.Helper()
	return s.Update(t.Context(), func(tx *store.Tx) error { return Add(tx, rec) })
}

func account(t testing.TB, s *store.Store, p mesh.PeerID) (a Account) {
	t.Helper()
	if err := s.View(func(tx *store.Tx) (err error) { a, err = Get(tx, p); return err }); err != nil {
		t.Fatal(err)
	}
	return a
}

func TestEachReceiptCountsOnce(t *testing.T) {
	alice, bob := newParty(t, 1), newParty(t, 2)
	s := newStore(t)
	asked := Record{Role: Asked, Envelope: sealed(t, bob, payload(bob.id, alice.id, 1)), Added: time.Unix(1, 0)}
	for range 3 {
		if err := add(t, s, asked); err != nil {
			t.Fatal(err)
		}
	}
	if err := add(t, s, Record{Role: Ran, Envelope: sealed(t, alice, payload(alice.id, bob.id, 2)), Added: time.Unix(2, 0)}); err != nil {
		t.Fatal(err)
	}
	// What this machine ran for itself, and what contradicts, nobody owes.
	if err := add(t, s, Record{Role: Own, Envelope: sealed(t, alice, payload(alice.id, alice.id, 3)), Added: time.Unix(3, 0)}); err != nil {
		t.Fatal(err)
	}
	if err := add(t, s, Record{Role: Asked, Flaw: "lies", Envelope: sealed(t, bob, payload(bob.id, alice.id, 4)), Added: time.Unix(4, 0)}); err != nil {
		t.Fatal(err)
	}
	a := account(t, s, bob.id)
	if a.Theirs != (Sum{Jobs: 1, Fuel: 1000}) || a.Ours != (Sum{Jobs: 1, Fuel: 1000}) {
		t.Errorf("bob's account: %+v", a)
	}
	id := payload(bob.id, alice.id, 1).Job
	for range 2 {
		if err := s.Update(t.Context(), func(tx *store.Tx) error { return Dispute(tx, id, bob.id, "another output") }); err != nil {
			t.Fatal(err)
		}
	}
	if a := account(t, s, bob.id); a.Theirs != (Sum{}) || a.Ours.Jobs != 1 {
		t.Errorf("what is disputed still counts: %+v", a)
	}
	if own := account(t, s, alice.id); own.Ours != (Sum{}) || own.Theirs != (Sum{}) {
		t.Errorf("what is owed to oneself: %+v", own)
	}
	if err := add(t, s, Record{Role: Asked, Envelope: []byte("x")}); mesh.KindOf(err) != mesh.Forged {
		t.Errorf("what is no receipt: %v", err)
	}
}

// What is disputed once its runner has another key is taken from the account that moved.
func TestDisputeAfterAChangeOfKeys(t *testing.T) {
	alice, bob, bobby := newParty(t, 1), newParty(t, 2), newParty(t, 3)
	s := newStore(t)
	if err := add(t, s, Record{Role: Asked, Envelope: sealed(t, bob, payload(bob.id, alice.id, 1)), Added: time.Unix(1, 0)}); err != nil {
		t.Fatal(err)
	}
	err := s.Update(t.Context(), func(tx *store.Tx) error {
		if err := Rekey(tx, bob.id, bobby.id); err != nil {
			return err
		}
		return Dispute(tx, payload(bob.id, alice.id, 1).Job, bobby.id, "another output")
	})
	if err != nil {
		t.Fatal(err)
	}
	if a := account(t, s, bobby.id); a.Theirs != (Sum{}) {
		t.Errorf("what is disputed still counts: %+v", a)
	}
}

func TestKeptReceiptsAreBounded(t *testing.T) {
	alice, bob, carol := newParty(t, 1), newParty(t, 2), newParty(t, 3)
	s := newStore(t)
	const more = 20
	err := s.Update(t.Context(), func(tx *store.Tx) error {
		for n := range MaxKept + more {
			if err := Add(tx, Record{Role: Asked, Envelope: sealed(t, bob, payload(bob.id, alice.id, n)), Added: time.Unix(int64(n), 0)}); err != nil {
				return err
			}
		}
		return Add(tx, Record{Role: Asked, Envelope: sealed(t, carol, payload(carol.id, alice.id, 1<<20)), Added: time.Unix(0, 0)})
	})
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	err = s.View(func(tx *store.Tx) error {
		if n := tx.Count(store.ReceiptOrder); n != MaxKept+1 {
			t.Errorf("%d places in order for %d receipts", n, MaxKept+1)
		}
		return Each(tx, func(_ Record, r *wire.Receipt) error {
			if n := int(binary.BigEndian.Uint64(r.Request[:])); n < more {
				t.Errorf("the old receipt %d is still there", n)
			}
			count++
			return nil
		})
	})
	if err != nil || count != MaxKept+1 {
		t.Errorf("%d are kept, want %d of bob and 1 of carol: %v", count, MaxKept, err)
	}
	if a := account(t, s, bob.id); a.Theirs.Jobs != MaxKept+more || a.Theirs.Fuel != 1000*(MaxKept+more) {
		t.Errorf("dropping receipts changed the account: %+v", a)
	}
}

func TestSumsDoNotWrap(t *testing.T) {
	s := Sum{Fuel: math.MaxUint64 - 1}
	s.add(Sum{Fuel: 10, Jobs: 1})
	if s.Fuel != math.MaxUint64 || s.Jobs != 1 {
		t.Errorf("%+v", s)
	}
}

func received(alice, bob mesh.PeerID) Received {
	want := payload(bob, alice, 1)
	e := Received{
		Runner: bob, Asker: alice, Request: want.Request, Module: want.Module, Spec: want.Spec, Seed: &want.Seed,
		Sent: 10, Output: NewTally(), Log: NewTally(), Exit: mesh.Exit{Fuel: 1000, PeakMemory: 65536},
		Input: func(n uint64) (wire.Digest, bool) { return DigestOf([]byte("in")), n == 2 },
	}
	_, _ = e.Output.Write([]byte("out"))
	return e
}

// Whatever a receipt states of a run that its asker knows, it cannot state
// differently: each field is changed in turn.
func TestReceiptMustFitWhatWasReceived(t *testing.T) {
	alice, bob := newParty(t, 1), newParty(t, 2)
	good := payload(bob.id, alice.id, 1)
	if flaw := received(alice.id, bob.id).Flaw(&good); flaw != "" {
		t.Fatalf("a true receipt: %s", flaw)
	}
	unknown := map[string]bool{ // to the asker: what only the runner can know, or what the form rules out
		"Version": true, "Job": true, "Cut": true, "Reason": true, "Schedule": true, "Caps": true, "Started": true, "Ended": true,
	}
	for f := range reflect.TypeFor[wire.Receipt]().Fields() {
		if unknown[f.Name] {
			continue
		}
		bad := good
		v := reflect.ValueOf(&bad).Elem().FieldByIndex(f.Index)
		switch v.Kind() {
		case reflect.Int:
			v.SetInt(v.Int() + 1)
		case reflect.Uint16, reflect.Uint64:
			v.SetUint(v.Uint() + 1)
		case reflect.String:
			v.SetString("x")
		case reflect.Bool:
			v.SetBool(!v.Bool())
		case reflect.Array:
			v.Index(0).SetUint(v.Index(0).Uint() ^ 1)
		default:
			t.Fatalf("field %s has a kind this test does not know: %s", f.Name, v.Kind())
		}
		if f.Name == "InputSize" {
			bad.InputSize = 11
		}
		if flaw := received(alice.id, bob.id).Flaw(&bad); flaw == "" {
			t.Errorf("%s may be stated as %v", f.Name, v.Interface())
		}
	}
}

func TestDifferences(t *testing.T) {
	a := payload("bob", "alice", 1)
	b := payload("carol", "alice", 2)
	b.Started, b.Ended = 100, 200
	if d := Differences(&a, &b); len(d) != 0 {
		t.Errorf("the same run elsewhere and later: %v", d)
	}
	b.Output, b.Fuel, b.Kind = DigestOf([]byte("lie")), 1001, mesh.OutOfFuel
	d := strings.Join(Differences(&a, &b), "\n")
	for _, want := range []string{"output " + b.Output.String() + ", not " + a.Output.String(), "fuel 1001, not 1000", "end out-of-fuel, not by itself"} {
		if !strings.Contains(d, want) {
			t.Errorf("%q is missing in\n%s", want, d)
		}
	}
}

func TestWhatCannotBeRepeated(t *testing.T) {
	for kind, can := range map[mesh.Kind]bool{
		mesh.Internal: true, mesh.Trap: true, mesh.OutOfFuel: true, mesh.OutOfMemory: true,
		mesh.Timeout: false, mesh.Canceled: false, mesh.Unavailable: false, mesh.Conflict: false,
	} {
		if err := Repeatable(&wire.Receipt{Kind: kind}); (err == nil) != can {
			t.Errorf("%s: %v", kind, err)
		}
	}
	if Repeatable(&wire.Receipt{Cut: true}) == nil {
		t.Error("a run whose record is cut off passes as repeatable")
	}
}
