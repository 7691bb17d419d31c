package security

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"iter"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"peercompute/pkg/identity"
	"peercompute/pkg/mesh"
	"peercompute/pkg/wire"
)

// attempts is how many forgeries are tried (test plan, V2).
const attempts = 1_000_000

// bodies has one plausible body for each verb there is.
func bodies() map[wire.Verb]any {
	const id = mesh.WorkloadID("aaaaaaaaaaaaaaaa")
	spec := mesh.Spec{
		Name: "hello", Runtime: mesh.Container, Image: "nginx:1.29", Digest: "sha256:" + strings.Repeat("ab", 32), Args: []string{"a", "b"}, Env: []string{"K=V"}, Port: 80,
		Resources: mesh.Resources{MilliCPU: 500, Memory: 64 << 20, Disk: 1 << 20, PIDs: 10}, Restart: mesh.RestartAlways, Publish: &mesh.Publication{Gateway: "gw"},
	}
	all := map[wire.Verb]any{
		wire.VerbPutModule: wire.PutModule{Digest: spec.Digest, Size: 100}, wire.VerbDeploy: wire.Deploy{Spec: spec}, wire.VerbList: wire.List{},
		wire.VerbLogs: wire.Logs{Workload: id, Follow: true, Tail: 3}, wire.VerbRun: wire.Deploy{Spec: spec}, wire.VerbPublish: wire.Publish{Workload: id, Name: "hello"},
		wire.VerbExpose: wire.Expose{Workload: id}, wire.VerbForward: wire.Forward{Workload: id, Port: 80},
		wire.VerbHistory: wire.Ref{Workload: id}, wire.VerbRollback: wire.Rollback{Workload: id, To: 1},
		wire.VerbExec:      wire.Exec{Workload: id, Argv: []string{"sh"}, TTY: true},
		wire.VerbSetSecret: wire.SetSecret{Name: "key", Sealed: []byte("sealed")}, wire.VerbRemoveSecret: wire.RemoveSecret{Name: "key"}, wire.VerbSecrets: wire.Secrets{},
		wire.VerbCopyOut: wire.CopyOut{Workload: id, Path: "/tmp"}, wire.VerbCopyIn: wire.CopyIn{Workload: id, Path: "/tmp", Tree: true},
	}
	for v := wire.Verb(1); !strings.HasPrefix(v.String(), "verb-"); v++ {
		if all[v] == nil {
			all[v] = wire.Ref{Workload: id, Force: true}
		}
	}
	return all
}

// edits returns one change for each leaf of what v points to.
func edits(v reflect.Value) (out []func()) {
	switch v.Kind() {
	case reflect.String:
		out = append(out, func() { v.SetString(v.String() + "x") })
		if v.Len() > 0 {
			out = append(out, func() { v.SetString("") })
		}
	case reflect.Bool:
		out = append(out, func() { v.SetBool(!v.Bool()) })
	case reflect.Int, reflect.Int64:
		out = append(out, func() { v.SetInt(v.Int() + 1) })
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint64:
		out = append(out, func() { v.SetUint(v.Uint() ^ 1) })
	case reflect.Array:
		for i := range v.Len() {
			out = append(out, edits(v.Index(i))...)
		}
	case reflect.Slice:
		for i := range v.Len() {
			out = append(out, edits(v.Index(i))...)
		}
		out = append(out, func() { v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem()))) })
	case reflect.Pointer:
		if v.IsNil() {
			out = append(out, func() { v.Set(reflect.New(v.Type().Elem())) })
		} else {
			out = append(out, edits(v.Elem())...)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			out = append(out, edits(v.Field(i))...)
		}
	}
	return out
}

// forger has what an attacker has: honest envelopes of alice for the target, keys of
// its own that are trusted too, and no key of alice.
type forger struct {
	t              *testing.T
	g              *target
	alice, mallory *identity.Key
	honest         [][]byte // by alice, to the target, never delivered
	known          map[string]bool
}

// class is one kind of forgery.
type class struct {
	name string
	gen  iter.Seq2[mesh.PeerID, []byte]
}

// from sends each of the envelopes as alice's.
func (f *forger) from(p mesh.PeerID, gen iter.Seq[[]byte]) iter.Seq2[mesh.PeerID, []byte] {
	return func(yield func(mesh.PeerID, []byte) bool) {
		for data := range gen {
			if f.known[string(data)] {
				continue // unchanged, so not a forgery
			}
			if !yield(p, data) {
				return
			}
		}
	}
}

func (f *forger) everyBit(yield func([]byte) bool) {
	for _, good := range f.honest {
		for i := range len(good) * 8 {
			bad := bytes.Clone(good)
			bad[i/8] ^= 1 << (i % 8)
			if !yield(bad) {
				return
			}
		}
	}
}

// everyByte sets each byte of one envelope to each value, drops it, doubles it, and
// cuts there.
func (f *forger) everyByte(yield func([]byte) bool) {
	good := f.honest[0]
	for i := range good {
		for v := range 256 {
			bad := bytes.Clone(good)
			bad[i] = byte(v)
			if !yield(bad) {
				return
			}
		}
		dropped := append(bytes.Clone(good[:i]), good[i+1:]...)
		doubled := append(append(bytes.Clone(good[:i+1]), good[i]), good[i+1:]...)
		if !yield(dropped) || !yield(doubled) || !yield(good[:i]) {
			return
		}
	}
}

// everyField changes each field of each request and of its body, under alice's old
// signature and under mallory's new one.
func (f *forger) everyField(yield func([]byte) bool) {
	key := private(f.t, f.mallory)
	for _, data := range f.honest {
		e := split(f.t, data)
		o, err := wire.OpenRequest(data)
		if err != nil {
			f.t.Fatal(err)
		}
		emit := func(r wire.Request) bool {
			raw, err := wire.Marshal(r)
			if err != nil {
				return true // cannot even be written
			}
			bad := e
			bad.payload = raw
			if !yield(bad.bytes()) {
				return false
			}
			if bytes.Equal(raw, e.payload) {
				return true
			}
			return yield(bad.resign(key).bytes())
		}
		for n := range edits(reflect.ValueOf(&o.Request).Elem()) {
			r := o.Request
			r.Challenge, r.Body = bytes.Clone(r.Challenge), bytes.Clone(r.Body)
			edits(reflect.ValueOf(&r).Elem())[n]()
			if !emit(r) {
				return
			}
		}
		body := bodies()[o.Verb]
		for n := range edits(addressable(body)) {
			v := addressable(body)
			edits(v)[n]()
			raw, err := wire.Marshal(v.Interface())
			if err != nil {
				f.t.Fatal(err)
			}
			r := o.Request
			r.Body = raw
			if !emit(r) {
				return
			}
		}
	}
}

// addressable is a deep copy of a body that can be changed.
func addressable(body any) reflect.Value {
	v := reflect.New(reflect.TypeOf(body))
	raw, err := wire.Marshal(body)
	if err == nil {
		err = wire.Unmarshal(raw, v.Interface(), wire.MaxRequest)
	}
	if err != nil {
		panic(err)
	}
	return v.Elem()
}

// everyPart puts the parts of different envelopes together, and types of other
// verbs and messages on each.
func (f *forger) everyPart(yield func([]byte) bool) {
	for i := range f.honest {
		for j := range f.honest {
			a, b := split(f.t, f.honest[i]), split(f.t, f.honest[j])
			for mask := 1; mask < 15; mask++ {
				c := a
				for bit, set := range []func(){func() { c.key = b.key }, func() { c.typ = b.typ }, func() { c.payload = b.payload }, func() { c.sig = b.sig }} {
					if mask&(1<<bit) != 0 {
						set()
					}
				}
				if !yield(c.bytes()) {
					return
				}
			}
		}
		for _, typ := range []string{"", "/peercompute/request/1/", "/peercompute/request/1/verb-0", "/peercompute/request/2/stop", "/peercompute/response/1/stop", "/peercompute/hello/1", "/peercompute/join/1", "/libp2p/peer-record"} {
			c := split(f.t, f.honest[i])
			c.typ = []byte(typ)
			if !yield(c.bytes()) {
				return
			}
		}
	}
}

// misused are honest signatures by alice and mallory that were meant for something
// else: another target, life, version, kind of message, or another connection.
func (f *forger) misused(yield func(mesh.PeerID, []byte) bool) {
	g := f.g
	for _, data := range f.honest { // stolen, and sent on others' connections
		for _, conn := range []mesh.PeerID{f.mallory.ID, g.key.ID, newKey(f.t).ID, ""} {
			if !yield(conn, data) {
				return
			}
		}
	}
	other := newKey(f.t)
	for verb, body := range bodies() {
		for _, change := range []func(*wire.Request){
			func(r *wire.Request) { r.To = other.ID },
			func(r *wire.Request) { r.To = f.alice.ID },
			func(r *wire.Request) { r.Incarnation[rand.IntN(16)] ^= 1 << rand.IntN(8) },
			func(r *wire.Request) { r.Incarnation = wire.Incarnation{} },
			func(r *wire.Request) { r.Version = uint(rand.IntN(100)) * 2 },
			func(r *wire.Request) { r.From = f.mallory.ID },
			func(r *wire.Request) { r.From = "" },
			func(r *wire.Request) { r.Issued -= (wire.MaxDrift + time.Second).Milliseconds() },
			func(r *wire.Request) { r.Expires += 1 + rand.Int64N(1<<40) },
			func(r *wire.Request) { r.Challenge = bytes.Repeat([]byte{7}, rand.IntN(32)+1) },
		} {
			r := g.request(f.alice, verb, body)
			change(&r)
			if !yield(f.alice.ID, seal(f.t, f.alice, r)) {
				return
			}
			r = g.request(f.alice, verb, body) // mallory, in alice's name
			if !yield(f.mallory.ID, seal(f.t, f.mallory, r)) || !yield(f.alice.ID, seal(f.t, f.mallory, r)) {
				return
			}
		}
	}
	// Other messages that alice signed, sent as requests.
	r := g.request(f.alice, wire.VerbStop, wire.Ref{})
	answer, err := wire.SealResponse(f.alice.Private, wire.Response{Version: 1, Verb: wire.VerbStop, From: f.alice.ID, To: g.key.ID, Body: r.Body})
	if err != nil {
		f.t.Fatal(err)
	}
	hello, err := wire.SealHello(f.alice.Private, wire.Hello{Version: 1, From: f.alice.ID, To: g.key.ID, Incarnation: r.Incarnation})
	if err != nil {
		f.t.Fatal(err)
	}
	join, err := wire.SealJoin(f.alice.Private, wire.NewJoin(wire.Invite{Peer: g.key.ID}, f.alice.ID, "alice", nil))
	if err != nil {
		f.t.Fatal(err)
	}
	for _, data := range [][]byte{answer, hello, join} {
		e := split(f.t, data)
		e.typ = []byte("/peercompute/request/1/stop")
		if !yield(f.alice.ID, data) || !yield(f.alice.ID, e.bytes()) {
			return
		}
	}
}

// random bends honest envelopes at random, without end: bits, runs of bytes, splices.
func (f *forger) random(yield func([]byte) bool) {
	r := rand.New(rand.NewPCG(1, 2))
	for {
		bad := bytes.Clone(f.honest[r.IntN(len(f.honest))])
		switch r.IntN(4) {
		case 0, 1:
			for range 2 + r.IntN(4) {
				bad[r.IntN(len(bad))] ^= 1 << r.IntN(8)
			}
		case 2:
			at := r.IntN(len(bad))
			for i := at; i < min(len(bad), at+1+r.IntN(64)); i++ {
				bad[i] = byte(r.Uint32())
			}
		case 3:
			with := f.honest[r.IntN(len(f.honest))]
			bad = append(bad[:r.IntN(len(bad))], with[r.IntN(len(with)):]...)
		}
		if !yield(bad) {
			return
		}
	}
}

// Nothing is admitted that its sender did not sign, for this target, this life of
// it and this connection. The requests as they were signed are admitted after all
// that, so it was not something else that refused.
func TestForgeries(t *testing.T) {
	t.Parallel()
	g := newTarget(t, newClock())
	f := &forger{t: t, g: g, alice: newKey(t), mallory: newKey(t), known: map[string]bool{}}
	g.trusts("alice", f.alice.ID)
	g.trusts("mallory", f.mallory.ID)
	for verb, body := range bodies() {
		data := seal(t, f.alice, g.request(f.alice, verb, body))
		f.honest, f.known[string(data)] = append(f.honest, data), true
	}
	weakVerified := 0
	classes := []class{
		{"every bit flipped", f.from(f.alice.ID, f.everyBit)},
		{"every byte changed, dropped, doubled, cut", f.from(f.alice.ID, f.everyByte)},
		{"every field changed", f.from(f.alice.ID, f.everyField)},
		{"every field changed, sent by its signer", f.from(f.mallory.ID, f.everyField)},
		{"parts exchanged", f.from(f.alice.ID, f.everyPart)},
		{"edges of the curve", edgeCases(t, g, f.alice, f.mallory, &weakVerified)},
		{"honest signatures misused", f.misused},
		{"bent at random", f.from(f.alice.ID, f.random)},
	}
	type try struct {
		class int
		conn  mesh.PeerID
		data  []byte
	}
	work := make(chan []try, 16)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for batch := range work {
				for _, a := range batch {
					if ticket, prior, err := g.judge(a.conn, a.data); err == nil || ticket != nil || prior != nil {
						t.Errorf("%s: accepted from %s: %x", classes[a.class].name, a.conn, a.data)
					}
				}
			}
		})
	}
	total, count := 0, make([]int, len(classes))
	var batch []try
	for n, c := range classes {
		for conn, data := range c.gen {
			batch = append(batch, try{n, conn, data})
			if len(batch) == 512 {
				work <- batch
				batch = nil
			}
			count[n]++
			if total++; total >= scale(attempts) && n == len(classes)-1 {
				break
			}
			if most := scale(attempts) / 4; n < len(classes)-1 && count[n] >= most {
				break // no class crowds out the others
			}
		}
	}
	work <- batch
	close(work)
	wg.Wait()
	if total < scale(attempts) {
		t.Fatalf("only %d attempts", total)
	}
	var report []string
	for n, c := range classes {
		report = append(report, fmt.Sprintf("%s: %d", c.name, count[n]))
		if count[n] < 100 {
			t.Errorf("only %d attempts of %q: it proves nothing", count[n], c.name)
		}
	}
	t.Logf("0 of %d accepted, want 0: %s", total, strings.Join(report, "; "))
	if weakVerified < 20 {
		t.Errorf("only %d signatures at the edges of the curve pass Ed25519's equation: the gate was hardly tried", weakVerified)
	}
	for _, data := range f.honest {
		if ticket, _, err := g.judge(f.alice.ID, data); err != nil || ticket == nil {
			t.Errorf("an honest request is refused: %v", err)
		} else {
			ticket.Release()
		}
	}
}

// signature is here so that nobody has to trust the helpers: an envelope made by
// them with alice's own key is as good as one by package wire.
func TestEnvelopeHelpers(t *testing.T) {
	g, k := newTarget(t, newClock()), newKey(t)
	g.trusts("k", k.ID)
	e := split(t, seal(t, k, g.request(k, wire.VerbList, wire.List{})))
	if !ed25519.Verify(e.key, e.signed(), e.sig) {
		t.Fatal("what the helper says was signed was not")
	}
	if ticket, _, err := g.judge(k.ID, e.resign(private(t, k)).bytes()); err != nil || ticket == nil {
		t.Fatalf("signed by the helper: %v", err)
	}
}
