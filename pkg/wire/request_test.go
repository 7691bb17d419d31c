package wire

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"peercompute/pkg/mesh"
)

func testKey(t testing.TB, seed byte) (crypto.PrivKey, mesh.PeerID) {
	t.Helper()
	k, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return k, id
}

type vector struct {
	name, want string
	data       []byte
}

func vectors(t testing.TB) []vector {
	t.Helper()
	out := vectorsOf(t, "testdata/requests.txt")
	if len(out) < 20 {
		t.Fatalf("only %d vectors", len(out))
	}
	return out
}

func vectorsOf(t testing.TB, file string) []vector {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []vector
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimSpace(line)
		if head, ok := strings.CutPrefix(line, "== "); ok {
			name, want, _ := strings.Cut(head, ": ")
			out = append(out, vector{name: name, want: want})
			continue
		}
		if line == "" {
			continue
		}
		b, err := hex.DecodeString(line)
		if err != nil {
			t.Fatalf("testdata: %v", err)
		}
		out[len(out)-1].data = append(out[len(out)-1].data, b...)
	}
	return out
}

func TestVectors(t *testing.T) {
	keyA, idA := testKey(t, 1)
	_, idB := testKey(t, 2)
	for _, v := range vectors(t) {
		o, err := OpenRequest(v.data)
		if v.want == "ok" {
			if err != nil {
				t.Errorf("%s: %v", v.name, err)
				continue
			}
			want := Request{
				Version: 1, Verb: VerbStop, From: idA, To: idB, Issued: 1767225600000, Expires: 1767225900000,
				Incarnation: Incarnation(bytes.Repeat([]byte{0x55}, 16)), Nonce: Nonce(bytes.Repeat([]byte{0x66}, 16)),
				Body: append([]byte{0xa1, 0x01, 0x70}, bytes.Repeat([]byte{'a'}, 16)...),
			}
			if !reflect.DeepEqual(o.Request, want) || o.Signer != idA {
				t.Errorf("%s: opened as %+v by %s, want %+v by %s", v.name, o.Request, o.Signer, want, idA)
			}
			if again, err := SealRequest(keyA, want); err != nil || !bytes.Equal(again, v.data) {
				t.Errorf("%s: sealing the same request gives other bytes (%v):\n%x\n%x", v.name, err, again, v.data)
			}
			continue
		}
		if v.name == "small-order-key" {
			// Such a signature may verify; then the signer must be none that can be trusted.
			if err == nil && (o.Signer == idA || o.Signer == o.From) {
				t.Errorf("%s: passes as %s", v.name, o.Signer)
			}
			continue
		}
		kind, rule, _ := strings.Cut(v.want, " ")
		if e := mesh.AsError(err); e == nil || e.Kind.String() != kind || e.Rule != rule {
			t.Errorf("%s: got %v, want %s by rule %s", v.name, err, kind, rule)
		}
	}
}

// Not one bit of a signed request can be changed.
func TestEveryBitIsProtected(t *testing.T) {
	good := vectors(t)[0].data
	for i := range len(good) * 8 {
		bad := bytes.Clone(good)
		bad[i/8] ^= 1 << (i % 8)
		if o, err := OpenRequest(bad); err == nil {
			t.Fatalf("bit %d flipped and accepted: %+v", i, o.Request)
		}
	}
}

// Every field of a request is part of what is signed: changing any, and putting
// the new payload under the old signature, is refused.
func TestEveryFieldIsSigned(t *testing.T) {
	key, from := testKey(t, 1)
	_, to := testKey(t, 2)
	base := Request{Version: 1, Verb: VerbDeploy, From: from, To: to, Issued: 1, Expires: 2, Challenge: []byte{1}, Body: []byte{0xa0}}
	sealed, err := SealRequest(key, base)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := Marshal(base)
	if err != nil {
		t.Fatal(err)
	}
	for f := range reflect.TypeFor[Request]().Fields() {
		changed := base
		v := reflect.ValueOf(&changed).Elem().FieldByIndex(f.Index)
		switch v.Kind() {
		case reflect.Int64:
			v.SetInt(v.Int() + 1)
		case reflect.Uint, reflect.Uint16:
			v.SetUint(v.Uint() + 1)
		case reflect.String:
			v.Set(reflect.ValueOf(map[string]mesh.PeerID{"From": to, "To": from}[f.Name]))
		case reflect.Array:
			v.Index(0).SetUint(v.Index(0).Uint() + 1)
		case reflect.Slice:
			if f.Name == "Body" {
				v.SetBytes([]byte{0xa1, 0x01, 0x02})
			} else {
				v.SetBytes([]byte{9})
			}
		default:
			t.Fatalf("field %s has a kind this test does not know: %s", f.Name, v.Kind())
		}
		other, err := Marshal(changed)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(other, payload) {
			t.Errorf("changing %s does not change the payload", f.Name)
		}
		// The envelope with the changed payload and the old signature.
		i := bytes.Index(sealed, payload)
		var forged []byte
		if len(other) == len(payload) {
			forged = bytes.Replace(sealed, payload, other, 1)
		} else {
			forged = append(bytes.Clone(sealed[:i-1]), byte(len(other)))
			forged = append(forged, other...)
			forged = append(forged, sealed[i+len(payload):]...)
		}
		if _, err := OpenRequest(forged); mesh.KindOf(err) != mesh.Forged {
			t.Errorf("%s changed under the old signature: %v, want it refused as forged", f.Name, err)
		}
	}
}

// A key of another kind signs as well as it likes: nothing of it is taken.
func TestOnlyEd25519Signs(t *testing.T) {
	_, to := testKey(t, 2)
	for kind, generate := range map[string]func() (crypto.PrivKey, crypto.PubKey, error){
		"Secp256k1": func() (crypto.PrivKey, crypto.PubKey, error) { return crypto.GenerateSecp256k1Key(rand.Reader) },
		"ECDSA":     func() (crypto.PrivKey, crypto.PubKey, error) { return crypto.GenerateECDSAKeyPair(rand.Reader) },
	} {
		key, pub, err := generate()
		if err != nil {
			t.Fatal(err)
		}
		from, err := peer.IDFromPublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		data, err := SealRequest(key, Request{Version: 1, Verb: VerbList, From: from, To: to, Issued: 1, Expires: 2, Body: []byte{0xa0}})
		if err != nil {
			t.Fatal(err)
		}
		if o, err := OpenRequest(data); mesh.KindOf(err) != mesh.Forged {
			t.Errorf("%s: %+v, %v, want it refused as forged", kind, o, err)
		}
	}
}

func TestRequestSizeIsCapped(t *testing.T) {
	if _, err := OpenRequest(make([]byte, MaxRequest+1)); mesh.KindOf(err) != mesh.TooLarge {
		t.Fatalf("got %v, want TooLarge", err)
	}
}

func TestResponseIsBound(t *testing.T) {
	key, from := testKey(t, 2)
	_, me := testKey(t, 1)
	digest := Digest{1}
	good := Response{Version: 1, Verb: VerbList, From: from, To: me, Request: digest, Body: []byte{0xa0}}
	open := func(r Response) error {
		data, err := SealResponse(key, r)
		if err != nil {
			t.Fatal(err)
		}
		_, err = OpenResponse(data, from, me, VerbList, digest)
		return err
	}
	if err := open(good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Response){
		"another request": func(r *Response) { r.Request[0]++ },
		"another verb":    func(r *Response) { r.Verb = VerbStop },
		"another asker":   func(r *Response) { r.To = from },
		"another peer":    func(r *Response) { r.From = me },
		"no verb, no err": func(r *Response) { r.Verb = 0 },
	} {
		r := good
		spoil(&r)
		if open(r) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	other, _ := testKey(t, 3)
	data, _ := SealResponse(other, good)
	if _, err := OpenResponse(data, from, me, VerbList, digest); err == nil {
		t.Error("an answer signed by a third peer is accepted")
	}
}

func TestHelloIsBound(t *testing.T) {
	key, from := testKey(t, 2)
	_, me := testKey(t, 1)
	h := Hello{Version: 1, From: from, To: me, Nonce: Nonce{7}, Challenge: []byte{1}}
	data, err := SealHello(key, h)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenHello(data, from, me, Nonce{7}); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenHello(data, from, me, Nonce{8}); err == nil {
		t.Error("a hello for another nonce is accepted")
	}
	if _, err := OpenHello(data, from, from, Nonce{7}); err == nil {
		t.Error("a hello for another peer is accepted")
	}
	if _, err := OpenRequest(data); err == nil {
		t.Error("a hello opens as a request")
	}
}

func TestErrorsKeepTheirCausesHere(t *testing.T) {
	e := mesh.Errorf(mesh.Internal, "cannot do it").WithHint("local advice").Because(os.ErrPermission)
	w := NewError(e)
	if w.Msg != "cannot do it" || w.Hint != "" {
		t.Fatalf("crosses the wire as %+v, want the message alone", w)
	}
	if w := NewError(e.WithRule("grant.memory")); w.Hint != "local advice" {
		t.Fatalf("a rule's next step does not cross: %+v", w)
	}
	if w := NewError(os.ErrPermission); strings.Contains(w.Msg, "permission") {
		t.Fatalf("a foreign error's text crosses the wire: %+v", w)
	}
}

// What opens is canonical: sealing it again is only possible to the same bytes.
func FuzzOpenRequest(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := OpenRequest(data)
		if err != nil {
			return
		}
		if _, err := Marshal(o.Request); err != nil {
			t.Fatalf("opened, but does not encode: %v", err)
		}
	})
}

func FuzzBodies(f *testing.F) {
	for _, body := range []any{Deploy{Spec: mesh.Spec{Name: "a"}.WithDefaults(), Recreate: true}, View{Update: &Update{Revision: 2}}, History{Revisions: []Revision{{Number: 1}}}, Rollback{"a", 1, true}, PutModule{"sha256:", 3}, Ref{"a", true}, Logs{Workload: "a", Follow: true, Tail: 3, Since: 1, Stream: mesh.Stderr, Entries: true, Revision: 2}, mesh.LogEntry{Stream: mesh.Stdout, Text: []byte("a")}, Forward{"a", 80}, Exec{Workload: "a", Argv: []string{"b"}, TTY: true}, Stats{Workloads: []mesh.WorkloadID{"a"}, Every: 1}, StatsReply{Workloads: []WorkloadStats{{Name: "a"}}}, ListReply{}, Run{Seed: []byte{1}, Whole: true}, Submit{Key: "a"}, JobOutput{Follow: true}, ListJobsReply{Jobs: []JobView{{Exit: &mesh.Exit{Trace: "f"}}}}} {
		b, err := Marshal(body)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, v := range vectorsOf(f, "testdata/jobs.txt") {
		f.Add(v.data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, v := range []any{
			new(mesh.LogEntry), new(Forward), new(Stats), new(StatsReply), new(Exec),
			new(Deploy), new(PutModule), new(Ref), new(Logs), new(Expose), new(Publish), new(ListReply), new(View), new(Error),
			new(Run), new(PutInput), new(Submit), new(JobRef), new(JobOutput), new(JobView), new(ListJobsReply), new(GetStatement), new(StatementReply),
		} {
			if DecodeBody(data, v) != nil {
				continue
			}
			if again, err := Marshal(v); err != nil || !bytes.Equal(again, data) {
				t.Fatalf("%T decodes from more than one encoding (%v)", v, err)
			}
			if d, ok := v.(*Deploy); ok {
				_ = d.Spec.WithDefaults().Validate()
			}
		}
	})
}
