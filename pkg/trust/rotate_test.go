package trust

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"filippo.io/edwards25519"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/crypto/pb"
	"github.com/libp2p/go-libp2p/core/peer"
	"pgregory.net/rapid"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

// key is the private key of peerID's peer n.
func key(t testing.TB, n uint32) crypto.PrivKey {
	t.Helper()
	s := sha256.Sum256(binary.BigEndian.AppendUint32(nil, n))
	k, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(s[:]))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// turn is a rotation that is to be signed: peer from's key is replaced by peer to's.
type turn struct {
	from, to    uint32
	seq         uint64
	at          time.Time
	overlap     time.Duration
	compromised bool
}

func (r turn) sign(t testing.TB) wire.Lineage {
	t.Helper()
	s, err := wire.SealRotation(key(t, r.from), key(t, r.to), wire.Rotation{
		Version: wire.Version, Old: peerID(t, r.from), New: peerID(t, r.to), Seq: r.seq,
		Time: r.at.UnixMilli(), Overlap: r.overlap.Milliseconds(), Compromised: r.compromised,
	})
	if err != nil {
		t.Fatal(err)
	}
	return wire.Lineage{Steps: []wire.Step{s}}
}

// moves counts what is moved together with a grant.
type moves struct{ all [][2]mesh.PeerID }

func (m *moves) also(_ *store.Tx, from, to mesh.PeerID) error {
	m.all = append(m.all, [2]mesh.PeerID{from, to})
	return nil
}

// ruled is a fixture with alice, who is peer 1, on the list, and a clock that stands.
func ruled(t testing.TB) *clocked {
	f := &clocked{fixture: open(t)}
	f.stop(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	f.put(1, "alice", Deploy)
	return f
}

func (c *clocked) stop(at time.Time) { c.List.now = func() time.Time { return at } }

func (c *clocked) succeed(t testing.TB, l wire.Lineage) (Succession, error) {
	t.Helper()
	var m moves
	s, err := c.Succeed(t.Context(), l, m.also)
	if s.Changed != (len(m.all) > 0) {
		t.Errorf("changed %t, and moved %d times", s.Changed, len(m.all))
	}
	return s, err
}

// accepts names which of the peers 1 to most the list lets in.
func (c *clocked) accepts(t testing.TB, most uint32) (out []uint32) {
	for n := uint32(1); n <= most; n++ {
		if c.Allowed(peerID(t, n)) {
			out = append(out, n)
		}
	}
	return out
}

func (c *clocked) want(t testing.TB, when string, most uint32, these ...uint32) {
	t.Helper()
	if got := c.accepts(t, most); !slices.Equal(got, these) {
		t.Errorf("%s: the keys %v are accepted, want %v", when, got, these)
	}
}

func wantRule(t testing.TB, what string, err error, kind mesh.Kind, rule string) {
	t.Helper()
	if e := mesh.AsError(err); e == nil || e.Kind != kind || e.Rule != rule {
		t.Errorf("%s: %v; want %v by %q", what, err, kind, rule)
	}
}

// Both keys count until the overlap ends, then only the new one, whatever the clock
// does afterwards and across restarts.
func TestOverlapEnds(t *testing.T) {
	f := ruled(t)
	now := f.now()
	if s, err := f.succeed(t, turn{1, 2, 1, now, time.Hour, false}.sign(t)); err != nil || !s.Changed || !s.Until.Equal(now.Add(time.Hour)) {
		t.Fatalf("%+v, %v", s, err)
	}
	f.want(t, "at once", 2, 1, 2)
	if g, _ := f.Get(peerID(t, 1)); g.Peer != peerID(t, 2) || g.Allow != Deploy || g.Name != "alice" {
		t.Errorf("the old key has the grant %+v", g)
	}
	f.stop(now.Add(time.Hour - time.Millisecond))
	f.want(t, "a moment before the end", 2, 1, 2)
	f.stop(now.Add(time.Hour))
	f.want(t, "at the end", 2, 2)
	f.stop(now) // before it is written down, a clock that was ahead is put right
	ended, next, err := f.Lapse(t.Context())
	if err != nil || len(ended) != 0 || !next.Equal(now.Add(time.Hour)) {
		t.Fatalf("nothing is due: %v, %s, %v", ended, next, err)
	}
	f.want(t, "put right", 2, 1, 2)
	f.stop(now.Add(time.Hour))
	if ended, next, err = f.Lapse(t.Context()); err != nil || !slices.Equal(ended, []mesh.PeerID{peerID(t, 1)}) || !next.IsZero() {
		t.Fatalf("due: %v, %s, %v", ended, next, err)
	}
	f.stop(now)
	f.want(t, "written down, and the clock put back", 2, 2)
	f.fixture.reopen()
	f.stop(now)
	f.want(t, "started again", 2, 2)
	if err := f.Put(t.Context(), Grant{Peer: peerID(t, 1), Name: "old", Quota: DefaultQuota()}); mesh.AsError(err) == nil || mesh.AsError(err).Rule != "rotation.retired" {
		t.Errorf("a replaced key is put on the list anew: %v", err)
	}
}

// No clock of the other side makes the overlap longer than it may be.
func TestOverlapIsBoundByThisClock(t *testing.T) {
	f := ruled(t)
	now := f.now()
	if s, err := f.succeed(t, turn{1, 2, 1, now.Add(1000 * time.Hour), time.Hour, false}.sign(t)); err != nil || !s.Until.Equal(now.Add(time.Hour)) {
		t.Fatalf("from the future: %+v, %v", s, err)
	}
	if s, err := f.succeed(t, turn{2, 3, 2, now.Add(-2 * time.Hour), time.Hour, false}.sign(t)); err != nil || s.Until.After(now) {
		t.Fatalf("from the past: %+v, %v", s, err)
	}
	f.want(t, "after an overlap that was over when it was heard of", 3, 3)
}

// A key that may be stolen is denied at once, and with it all that came before it.
func TestCompromisedKeyIsDeniedAtOnce(t *testing.T) {
	f := ruled(t)
	now := f.now()
	for _, r := range []turn{{1, 2, 1, now, 24 * time.Hour, false}, {2, 3, 2, now, 0, true}} {
		if _, err := f.succeed(t, r.sign(t)); err != nil {
			t.Fatal(err)
		}
	}
	f.want(t, "at once", 3, 3)
	f.stop(now.Add(-time.Hour))
	f.want(t, "with the clock put back", 3, 3)
	f.fixture.reopen()
	f.stop(now.Add(-time.Hour))
	f.want(t, "started again", 3, 3)
}

func TestRefusedRotations(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	first := turn{1, 2, 5, now, time.Hour, false}
	for name, c := range map[string]struct {
		turn
		kind mesh.Kind
		rule string
	}{
		"a second successor":             {turn{1, 3, 6, now, time.Hour, false}, mesh.Conflict, RuleFork},
		"a second one, as compromised":   {turn{1, 3, 6, now, 0, true}, mesh.Conflict, RuleFork},
		"the same number":                {turn{2, 3, 5, now, time.Hour, false}, mesh.Replayed, RuleStale},
		"a smaller number":               {turn{2, 3, 4, now, time.Hour, false}, mesh.Replayed, RuleStale},
		"back to the key before":         {turn{2, 1, 6, now, time.Hour, false}, mesh.Conflict, RuleTaken},
		"to another peer's key":          {turn{2, 7, 6, now, time.Hour, false}, mesh.Conflict, RuleTaken},
		"to this machine's key":          {turn{2, 0, 6, now, time.Hour, false}, mesh.Conflict, RuleTaken},
		"of a key that is not on a list": {turn{8, 9, 1, now, time.Hour, false}, mesh.Untrusted, "trust"},
	} {
		f := ruled(t)
		f.put(7, "bob", 0)
		if _, err := f.succeed(t, first.sign(t)); err != nil {
			t.Fatal(err)
		}
		seq, head := f.Head()
		_, err := f.succeed(t, c.sign(t))
		wantRule(t, name, err, c.kind, c.rule)
		f.want(t, name, 3, 1, 2)
		if n, h := f.Head(); n != seq || h != head {
			t.Errorf("%s: it left an entry in the log", name)
		}
	}
}

// What is known already may be said again, and changes nothing.
func TestKnownRotationIsRepeated(t *testing.T) {
	f := ruled(t)
	l := turn{1, 2, 1, f.now(), time.Hour, false}.sign(t)
	for i := range 3 {
		s, err := f.succeed(t, l)
		if err != nil || s.Changed != (i == 0) || s.New != peerID(t, 2) {
			t.Fatalf("time %d: %+v, %v", i, s, err)
		}
	}
	if seq, _ := f.Head(); seq != 2 {
		t.Errorf("the log has %d entries, want the grant and one rotation", seq)
	}
}

func TestRotationsAreLimited(t *testing.T) {
	f := ruled(t)
	now := f.now()
	var last error
	for i := range uint32(maxRotations + 1) {
		_, last = f.succeed(t, turn{i + 1, i + 2, uint64(i + 1), now, time.Hour, false}.sign(t))
		if i < maxRotations && last != nil {
			t.Fatalf("rotation %d: %v", i+1, last)
		}
	}
	wantRule(t, "one more than a day has", last, mesh.Quota, RuleOften)
	again := turn{maxRotations + 1, maxRotations + 2, maxRotations + 1, now, time.Hour, false}.sign(t)
	f.stop(now.Add(wire.MaxOverlap - time.Second))
	_, err := f.succeed(t, again)
	wantRule(t, "a second before the day is over", err, mesh.Quota, RuleOften)
	f.stop(now.Add(wire.MaxOverlap))
	if _, err := f.succeed(t, again); err != nil {
		t.Errorf("the next day: %v", err)
	}
}

// One key alone names no successor and takes no place.
func TestBothKeysMustSign(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	good := turn{1, 2, 1, now, time.Hour, false}.sign(t).Steps[0]
	r := wire.Rotation{Version: wire.Version, Old: peerID(t, 1), New: peerID(t, 2), Seq: 1, Time: now.UnixMilli(), Overlap: 1000}
	signed := func(by, to uint32) wire.Step {
		s, err := wire.SealRotation(key(t, by), key(t, to), r)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for name, s := range map[string]wire.Step{
		"the old key only": {ByOld: good.ByOld}, "the new key only": {ByNew: good.ByNew},
		"the old key twice": {ByOld: good.ByOld, ByNew: good.ByOld}, "the new key twice": signed(2, 2),
		"a third for the old": signed(3, 2), "a third for the new": signed(1, 3),
		"different ends": {ByOld: good.ByOld, ByNew: signed(1, 2).ByNew},
	} {
		f := ruled(t)
		if _, err := f.succeed(t, wire.Lineage{Steps: []wire.Step{s}}); mesh.KindOf(err) != mesh.Forged {
			t.Errorf("signed by %s: %v, want Forged", name, err)
		}
		f.want(t, name, 3, 1)
	}
}

// neutral is a key whose point is the neutral one: anybody can sign with it.
type neutral struct{ crypto.PubKey }

func newNeutral(t *testing.T) neutral {
	pub, err := crypto.UnmarshalEd25519PublicKey(edwards25519.NewIdentityPoint().Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return neutral{pub}
}

func (k neutral) Equals(crypto.Key) bool   { return false }
func (k neutral) Raw() ([]byte, error)     { return nil, errors.New("it has no secret") }
func (k neutral) Type() pb.KeyType         { return pb.KeyType_Ed25519 }
func (k neutral) GetPublic() crypto.PubKey { return k.PubKey }

func (k neutral) Sign([]byte) ([]byte, error) {
	var wide [64]byte
	rand.Read(wide[:])
	s, err := edwards25519.NewScalar().SetUniformBytes(wide[:])
	if err != nil {
		return nil, err
	}
	return append(new(edwards25519.Point).ScalarBaseMult(s).Bytes(), s.Bytes()...), nil
}

// A key with which everybody can sign is refused as a successor, though its signature
// is as it should be.
func TestWeakSuccessorIsRefused(t *testing.T) {
	f := ruled(t)
	weak := newNeutral(t)
	id, err := peer.IDFromPublicKey(weak.PubKey)
	if err != nil {
		t.Fatal(err)
	}
	s, err := wire.SealRotation(key(t, 1), weak, wire.Rotation{
		Version: wire.Version, Old: peerID(t, 1), New: id, Seq: 1, Time: f.now().UnixMilli(), Overlap: 1000,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(); err != nil {
		t.Fatalf("the signatures alone refuse it, so this shows nothing: %v", err)
	}
	_, err = f.succeed(t, wire.Lineage{Steps: []wire.Step{s}})
	wantRule(t, "a key of small order", err, mesh.Invalid, "identity.key")
	if f.Allowed(id) {
		t.Error("a key with which everybody can sign is accepted")
	}
	f.want(t, "afterwards", 1, 1)
}

// If what belongs to the peer cannot be moved, nothing has changed.
func TestRotationIsOneTransaction(t *testing.T) {
	f := ruled(t)
	l := turn{1, 2, 1, f.now(), 0, true}.sign(t)
	_, err := f.Succeed(t.Context(), l, func(*store.Tx, mesh.PeerID, mesh.PeerID) error { return errors.New("no room") })
	if err == nil {
		t.Fatal("no error")
	}
	f.want(t, "in memory", 2, 1)
	f.fixture.reopen()
	f.want(t, "on disk", 2, 1)
}

// At every moment exactly those keys are accepted that should be, whatever comes in
// which order: rotations, repeated and forked ones, time, clocks put back, restarts.
// What belongs to the peer moves once for each new key.
func TestRotationAgainstAModel(t *testing.T) {
	const keys = 12
	f := &clocked{fixture: open(t)} // one for all runs, which take keys of their own
	base := uint32(0)
	rapid.Check(t, func(rt *rapid.T) {
		base += 100
		name, first := fmt.Sprintf("alice%d", base), base // its key k is peer base + k
		now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		f.stop(now)
		f.put(first+1, name, Deploy)
		ids := make([]mesh.PeerID, keys+1)
		for k := range ids {
			ids[k] = peerID(t, first+uint32(k))
		}
		sign := func(r turn) wire.Lineage {
			r.from, r.to = first+r.from, first+r.to
			return r.sign(t)
		}
		present := uint32(1)
		death := map[uint32]time.Time{} // of former keys: from when on each is denied
		dead := map[uint32]bool{}       // for ever
		began := map[uint32]time.Time{} // when each key was replaced
		var m, want moves
		var told []wire.Lineage
		for step := range rapid.IntRange(1, 14).Draw(rt, "steps") {
			act := rapid.SampledFrom([]string{"rotate", "rotate", "compromised", "repeat", "fork", "stale", "time", "back", "lapse", "restart"}).Draw(rt, "act")
			overlap := time.Duration(rapid.IntRange(0, 1440).Draw(rt, "minutes")) * time.Minute
			switch act {
			case "rotate", "compromised":
				if present == keys {
					continue
				}
				r := turn{present, present + 1, uint64(present), now.Add(time.Duration(rapid.IntRange(-600, 600).Draw(rt, "their clock")) * time.Minute), overlap, act == "compromised"}
				if r.compromised {
					r.overlap = 0
				}
				l := sign(r)
				lately := 0
				for _, at := range began {
					if now.Before(at.Add(24 * time.Hour)) {
						lately++
					}
				}
				_, err := f.Succeed(t.Context(), l, m.also)
				if lately >= 8 {
					if err == nil {
						rt.Fatalf("rotation %d within a day", lately+1)
					}
					break
				}
				if err != nil {
					rt.Fatal(err)
				}
				until := r.at.Add(r.overlap)
				if latest := now.Add(r.overlap); until.After(latest) {
					until = latest
				}
				for k := uint32(1); k <= present; k++ {
					if at, was := death[k]; !was || until.Before(at) {
						death[k] = until
					}
					dead[k] = dead[k] || r.compromised
				}
				began[present] = now
				want.all = append(want.all, [2]mesh.PeerID{ids[present], ids[present+1]})
				present++
				told = append(told, l)
			case "repeat":
				if len(told) == 0 {
					continue
				}
				if s, err := f.Succeed(t.Context(), rapid.SampledFrom(told).Draw(rt, "which"), m.also); err != nil || s.Changed {
					rt.Fatalf("repeated: %+v, %v", s, err)
				}
			case "fork":
				if present == 1 {
					continue
				}
				from := uint32(rapid.IntRange(1, int(present-1)).Draw(rt, "whose"))
				if _, err := f.Succeed(t.Context(), sign(turn{from, 50, 1 << 20, now, overlap, false}), m.also); mesh.KindOf(err) != mesh.Conflict {
					rt.Fatalf("a fork of key %d: %v", from, err)
				}
			case "stale":
				if present == 1 {
					continue
				}
				if _, err := f.Succeed(t.Context(), sign(turn{present, 51, uint64(present - 1), now, overlap, false}), m.also); mesh.KindOf(err) != mesh.Replayed {
					rt.Fatalf("a number that was used: %v", err)
				}
			case "time":
				now = now.Add(overlap)
			case "back":
				now = now.Add(-overlap / 4)
			case "lapse":
				if _, _, err := f.Lapse(t.Context()); err != nil {
					rt.Fatal(err)
				}
				for k, at := range death {
					dead[k] = dead[k] || !now.Before(at)
				}
			case "restart":
				f.fixture.reopen()
			}
			f.stop(now)
			for k := uint32(1); k <= keys; k++ {
				should := k == present || k < present && !dead[k] && now.Before(death[k])
				if f.Allowed(ids[k]) != should {
					rt.Fatalf("step %d, %s: key %d of %d is accepted: %t", step, act, k, present, !should)
				}
			}
			for _, n := range []uint32{50, 51} {
				if f.Allowed(peerID(t, first+n)) {
					rt.Fatalf("step %d, %s: key %d is accepted", step, act, n)
				}
			}
			if fmt.Sprint(m.all) != fmt.Sprint(want.all) {
				rt.Fatalf("step %d, %s: moved %v, want %v", step, act, m.all, want.all)
			}
			if g, err := f.Find(name); err != nil || g.Peer != ids[present] {
				rt.Fatalf("step %d, %s: its entry is %+v, %v", step, act, g, err)
			}
		}
	})
}
