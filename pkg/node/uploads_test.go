package node

import (
	"testing"

	"peercompute/pkg/mesh"
	"peercompute/pkg/wire"
)

// What a peer sends at once is bounded, and given back once.
func TestUploadsAreBounded(t *testing.T) {
	var u uploads
	var release []func()
	for range maxUploading / wire.MaxInput {
		r, err := u.take(ann, wire.MaxInput)
		if err != nil {
			t.Fatal(err)
		}
		release = append(release, r)
	}
	if _, err := u.take(ann, 1); mesh.KindOf(err) != mesh.Overloaded {
		t.Errorf("one byte more: %v", err)
	}
	if r, err := u.take(ben, wire.MaxModule); err != nil {
		t.Errorf("another peer: %v", err)
	} else {
		r()
	}
	release[0]()
	release[0]()
	if _, err := u.take(ann, wire.MaxInput+1); mesh.KindOf(err) != mesh.Overloaded {
		t.Errorf("given back twice: %v", err)
	}
	for _, r := range release {
		r()
	}
	if len(u.of) != 0 {
		t.Errorf("in the end %v are counted", u.of)
	}
}
