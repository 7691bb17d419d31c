package backup

import (
	"bytes"
	"encoding/json"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"peercompute/pkg/identity"
	"peercompute/pkg/mesh"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

const (
	testFactor = 8
	secret     = "correct horse battery"
)

func newKey(t testing.TB) *identity.Key {
	t.Helper()
	k, err := identity.Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// content is one of a node that changed its key once and trusts one peer.
func content(t testing.TB) *Content {
	t.Helper()
	old, key := newKey(t), newKey(t)
	at := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	step, err := wire.SealRotation(old.Private, key.Private, wire.Rotation{Version: wire.Version, Old: old.ID, New: key.ID, Seq: 1, Time: at.UnixMilli()})
	if err != nil {
		t.Fatal(err)
	}
	pem, err := key.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return &Content{
		Version: Version, Made: at, Node: key.ID, Role: "peer", Key: pem,
		Changes: []Change{{Seq: 1, Old: old.ID, New: key.ID, Step: step, Began: at, Until: at}},
		Trust:   trust.Snapshot{Grants: []trust.Grant{{Peer: newKey(t).ID, Name: "bob", Allow: trust.Deploy, Quota: trust.DefaultQuota(), Added: at}}},
	}
}

func plain(t testing.TB, c *Content) []byte {
	t.Helper()
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRoundTrip(t *testing.T) {
	c := content(t)
	data, err := Seal(c, secret, testFactor)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(data, []byte("PRIVATE")) || bytes.Contains(data, []byte("bob")) {
		t.Fatal("the backup is not encrypted")
	}
	got, key, err := Open(data, secret)
	if err != nil || !reflect.DeepEqual(got, c) || key.ID != c.Node {
		t.Fatalf("got %+v, %v; want %+v", got, err, c)
	}
	if _, _, err := Open(data, secret+"x"); mesh.AsError(err).Rule != "backup.passphrase" || strings.Contains(err.Error(), "\n") {
		t.Errorf("a wrong passphrase: %v", err)
	}
	for at := range data {
		b := bytes.Clone(data)
		b[at] ^= 1
		if _, _, err := Open(b, secret); err == nil {
			t.Fatalf("byte %d was changed and it was read", at)
		}
	}
	for _, n := range []int{0, 1, 100, len(data) / 2, len(data) - 17, len(data) - 1} {
		if _, _, err := Open(data[:n], secret); err == nil {
			t.Errorf("cut to %d bytes it was read", n)
		}
	}
	if _, _, err := Open(append(data, 0), secret); err == nil {
		t.Error("with a byte behind it was read")
	}
}

// A file that asks for more memory than ours take is refused before it gets it.
func TestWorkFactorIsBounded(t *testing.T) {
	data, err := Seal(content(t), secret, testFactor)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := bytes.Cut(data, []byte(" 8\n"))
	if _, _, err := Open(bytes.Join([][]byte{head, rest}, []byte(" 19\n")), secret); err == nil || mesh.AsError(err).Rule != "backup.form" {
		t.Errorf("got %v, want it refused for its work factor", err)
	}
}

func TestParseRefuses(t *testing.T) {
	weakKey, err := crypto.UnmarshalEd25519PublicKey(append([]byte{1}, make([]byte, 31)...))
	if err != nil {
		t.Fatal(err)
	}
	weak, err := peer.IDFromPublicKey(weakKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Parse(plain(t, content(t))); err != nil {
		t.Fatal(err)
	}
	other := newKey(t)
	for _, c := range []struct {
		name, rule string
		change     func(*Content)
	}{
		{"another version", "backup.version", func(c *Content) { c.Version = 2 }},
		{"another's key", "backup.form", func(c *Content) { c.Key, _ = other.Encode() }},
		{"no key", "backup.form", func(c *Content) { c.Key = nil }},
		{"a weak key of a peer", "identity.key", func(c *Content) { c.Trust.Grants[0].Peer = weak }},
		{"a weak key that was replaced", "identity.key", func(c *Content) {
			c.Trust.Retired = []trust.Former{{Key: weak, Next: c.Trust.Grants[0].Peer}}
		}},
		{"a change that leads elsewhere", "backup.form", func(c *Content) { c.Changes[0].New = other.ID }},
		{"a change that is not signed", "", func(c *Content) { c.Changes[0].Step.ByOld[9] ^= 1 }},
		{"a change that is left out", "backup.form", func(c *Content) { c.Changes[0].Seq = 2 }},
	} {
		x := content(t)
		c.change(x)
		if _, _, err := Parse(plain(t, x)); err == nil || c.rule != "" && mesh.AsError(err).Rule != c.rule {
			t.Errorf("%s: got %v, want it refused by %q", c.name, err, c.rule)
		}
	}
	good := string(plain(t, content(t)))
	for name, bad := range map[string]string{
		"an unknown field": strings.Replace(good, `"role":`, `"rule":"","role":`, 1),
		"a field twice":    strings.Replace(good, `"role":`, `"role":"gateway","role":`, 1),
		"another case":     strings.Replace(good, `"role":`, `"Role":`, 1),
		"space":            " " + good,
		"more behind":      good + "{}",
	} {
		if _, _, err := Parse([]byte(bad)); err == nil {
			t.Errorf("%s: it was read", name)
		}
	}
}

// The content is bounded before it is read as JSON, also where it was compressed to
// nothing by its writer's patience.
func TestContentIsBounded(t *testing.T) {
	to, err := age.NewScryptRecipient(secret)
	if err != nil {
		t.Fatal(err)
	}
	to.SetWorkFactor(testFactor)
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(w, zeros{}, MaxContent+1); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(out.Bytes(), secret); mesh.KindOf(err) != mesh.TooLarge {
		t.Errorf("got %v, want TooLarge", err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// Whatever is read is written as the same bytes, and its key is the node's.
func FuzzParse(f *testing.F) {
	good := plain(f, content(f))
	f.Add(good)
	f.Add([]byte(`{"version":1}`))
	f.Add([]byte(`{"version":2}`))
	f.Add(bytes.Replace(good, []byte(`"changes"`), []byte(`"Changes"`), 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, key, err := Parse(data)
		if err != nil {
			return
		}
		if key.ID != c.Node || !bytes.Equal(plain(t, c), data) {
			t.Fatalf("%q was read as %+v", data, c)
		}
	})
}
