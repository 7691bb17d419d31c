package wire

import (
	"bytes"
	"testing"

	"peercompute/pkg/mesh"
)

// Whatever answers come, they open only as what they answer.
func FuzzOpenAnswers(f *testing.F) {
	keyA, a := testKey(f, 1)
	keyB, b := testKey(f, 2)
	nonce := Nonce{1}
	request := Digest{2}
	secret := Secret{3}
	join := NewJoin(Invite{Peer: b, Secret: secret}, a, "alice", nil)
	join.Nonce = nonce
	for _, seal := range []func() ([]byte, error){
		func() ([]byte, error) {
			return SealHello(keyB, Hello{Version: Version, From: b, To: a, Nonce: nonce, Challenge: []byte{1}})
		},
		func() ([]byte, error) {
			return SealResponse(keyB, Response{Version: Version, Verb: VerbDeploy, From: b, To: a, Request: request})
		},
		func() ([]byte, error) { return SealJoined(keyB, join.Accept(secret)) },
		func() ([]byte, error) {
			return SealJoined(keyB, join.Refuse(mesh.Errorf(mesh.Denied, "no").WithRule("join.secret")))
		},
		func() ([]byte, error) { return SealHello(keyA, Hello{Version: Version, From: a, To: b, Nonce: nonce}) },
	} {
		data, err := seal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if h, err := OpenHello(data, b, a, nonce); err == nil && (h.From != b || h.To != a || h.Nonce != nonce) {
			t.Fatalf("a hello that is not the answer opened: %+v", h)
		}
		if r, err := OpenResponse(data, b, a, VerbDeploy, request); err == nil && (r.From != b || r.To != a || r.Request != request) {
			t.Fatalf("another answer opened: %+v", r)
		}
		_ = OpenJoined(data, join, secret)
	})
}

// A message is read whole or not at all, and never more of it than the limit.
func FuzzReadMessage(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 7}, 16)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff}, 4096)
	f.Add([]byte{0, 0}, 0)
	f.Fuzz(func(t *testing.T, data []byte, limit int) {
		limit = max(min(limit, 1<<16), 0)
		in := bytes.NewReader(data)
		got, err := ReadMessage(in, limit)
		if err != nil {
			return
		}
		if len(got) > limit || 4+len(got)+in.Len() != len(data) {
			t.Fatalf("%d bytes of %d under a limit of %d", len(got), len(data), limit)
		}
		var out bytes.Buffer
		if err := WriteMessage(&out, got); err != nil || !bytes.Equal(out.Bytes(), data[:4+len(got)]) {
			t.Fatalf("written again it is %x (%v)", out.Bytes(), err)
		}
	})
}
