package control

import (
	"bytes"
	"encoding/json"
	"net/http"
	"testing"

	"peercompute/pkg/mesh"
)

// one reads a body as T; what is read can be written, and read again as the same.
func one[T any](t *testing.T, data []byte) {
	t.Helper()
	read := func(data []byte) (T, error) {
		r, err := http.NewRequest("POST", "http://peerd/", bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		return body[T](r)
	}
	v, err := read(data)
	if err != nil {
		if mesh.KindOf(err) != mesh.Invalid {
			t.Fatalf("%T: %v, want Invalid", v, err)
		}
		return
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatalf("%T is read and cannot be written: %v", v, err)
	}
	w, err := read(text)
	if err != nil {
		t.Fatalf("%T does not read what it writes: %v\n%s", v, err, text)
	}
	if again, err := json.Marshal(w); err != nil || !bytes.Equal(text, again) {
		t.Fatalf("%T: %s and then %s (%v)", v, text, again, err)
	}
}

// FuzzBodies feeds every kind of body that the local API takes.
func FuzzBodies(f *testing.F) {
	for _, s := range []string{
		`{"id":"x","addrs":["/ip4/1.2.3.4/tcp/1"],"grant":{"allow":["deploy"],"memory":1}}`,
		`{"ttl":3600000000000,"uses":1,"grant":{}}`, `{"token":"peerjoin1-x"}`, `{"addr":"/p2p/x","grant":{"allow":[]}}`,
		`{"peer":"bob","spec":{"name":"a","runtime":"wasm","env":["A=b"],"args":[]},"wait":true}`, `{"for":1}`, `{}`, `[]`, `{"for":1}{"for":2}`,
		`{"name":"a","grant":{"until":{"at":"2026-01-01T00:00:00Z"}}}`, `{"gateway":"gw"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		one[AddPeer](t, data)
		one[Approve](t, data)
		one[Deploy](t, data)
		one[Export](t, data)
		one[GrantChange](t, data)
		one[JoinInvite](t, data)
		one[KnockAt](t, data)
		one[LetKnock](t, data)
		one[NewInvite](t, data)
		one[Pause](t, data)
		one[Publish](t, data)
		one[ReceiptFile](t, data)
		one[Run](t, data)
	})
}
