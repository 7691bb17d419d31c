package wire

import (
	"strings"
	"testing"

	"peercompute/pkg/mesh"
)

func TestTokenRoundTrip(t *testing.T) {
	_, id := testKey(t, 1)
	i := Invite{Version: 1, Peer: id, Addrs: []string{"/ip4/192.0.2.1/tcp/4001"}, Secret: Secret{1, 2, 3}, Expires: 5, Allow: []string{"deploy"}, Name: "bob"}
	token, err := i.Token()
	if err != nil || strings.ContainsAny(token, " \n/+=") {
		t.Fatalf("token %q, %v; want one word", token, err)
	}
	got, err := ParseToken("  " + token + "\n")
	if err != nil || got.Peer != i.Peer || got.Secret != i.Secret || got.Expires != 5 || got.Name != "bob" {
		t.Fatalf("read back as %+v, %v", got, err)
	}
	for _, bad := range []string{"", "x", tokenPrefix, token[:len(token)-3], token + "AA", strings.Replace(token, tokenPrefix, "peerjoin9-", 1), tokenPrefix + strings.Repeat("A", MaxToken)} {
		if _, err := ParseToken(bad); mesh.KindOf(err) != mesh.Invalid {
			t.Errorf("%.30q: %v, want Invalid", bad, err)
		}
	}
}

func TestJoinIsBoundToBothKeys(t *testing.T) {
	keyA, a := testKey(t, 1)
	keyB, b := testKey(t, 2)
	keyC, c := testKey(t, 3)
	s := Secret{7}
	j := NewJoin(Invite{Peer: b, Secret: s}, a, "alice", nil)
	if !j.Knows(s) || j.Knows(Secret{8}) {
		t.Fatal("the proof does not tell secrets apart")
	}
	for name, spoil := range map[string]func(*Join){
		"another sender":   func(j *Join) { j.From = c },
		"another receiver": func(j *Join) { j.To = c },
		"another nonce":    func(j *Join) { j.Nonce[0]++ },
	} {
		k := j
		spoil(&k)
		if k.Knows(s) {
			t.Errorf("%s: the proof still holds", name)
		}
	}
	data, err := SealJoin(keyA, j)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenJoin(data, a, b); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenJoin(data, c, b); err == nil {
		t.Error("c passes on a's message")
	}
	if stolen, _ := SealJoin(keyC, j); stolen != nil {
		if _, err := OpenJoin(stolen, c, b); err == nil {
			t.Error("c signs a's message")
		}
	}
	answer, err := SealJoined(keyB, j.Accept(s))
	if err != nil {
		t.Fatal(err)
	}
	if err := OpenJoined(answer, j, s); err != nil {
		t.Fatal(err)
	}
	if err := OpenJoined(answer, j, Secret{8}); err == nil {
		t.Error("an answer from one who does not know the secret passes")
	}
	if forged, _ := SealJoined(keyC, j.Accept(s)); OpenJoined(forged, j, s) == nil {
		t.Error("another's answer passes")
	}
	refusal, err := SealJoined(keyB, j.Refuse(mesh.Errorf(mesh.Denied, "no").WithRule("join.secret")))
	if err != nil {
		t.Fatal(err)
	}
	if err := OpenJoined(refusal, j, s); mesh.KindOf(err) != mesh.Denied {
		t.Errorf("a refusal reads as %v", err)
	}
}

func FuzzParseToken(f *testing.F) {
	_, id := testKey(f, 1)
	token, err := Invite{Version: 1, Peer: id}.Token()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token)
	f.Fuzz(func(t *testing.T, s string) {
		i, err := ParseToken(s)
		if err != nil {
			return
		}
		again, err := i.Token()
		if err != nil || again != strings.TrimSpace(s) {
			t.Fatalf("an invite has two texts: %q and %q (%v)", s, again, err)
		}
	})
}

func FuzzOpenJoin(f *testing.F) {
	key, a := testKey(f, 1)
	_, b := testKey(f, 2)
	data, err := SealJoin(key, NewJoin(Invite{Peer: b}, a, "alice", []string{"/ip4/192.0.2.1/tcp/1"}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		if j, err := OpenJoin(data, a, b); err == nil && (j.From != a || j.To != b) {
			t.Fatalf("opened for %s to %s", j.From, j.To)
		}
	})
}
