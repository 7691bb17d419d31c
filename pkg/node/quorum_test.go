package node

import (
	"bytes"
	"io"
	"path/filepath"
	"testing"

	"peercompute/pkg/blob"
	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

// Two different results can never both have a quorum, whatever is asked for.
func TestQuorumIsAMajority(t *testing.T) {
	for replicas := range maxReplicas + 3 {
		for quorum := range maxReplicas + 3 {
			got := checkQuorum(control.RunQuorum{Replicas: replicas, Quorum: quorum}) == nil
			want := replicas >= 2 && replicas <= maxReplicas && quorum <= replicas && quorum+quorum > replicas
			if got != want {
				t.Errorf("%d of %d: accepted %v, want %v", quorum, replicas, got, want)
			}
		}
	}
	if checkQuorum(control.RunQuorum{}) == nil {
		t.Error("the zero value is accepted")
	}
}

// What waits for a quorum is bounded over both streams, and comes out as it went in.
func TestHeldOutputIsBounded(t *testing.T) {
	inputs, err := blob.Open(blob.Config{Dir: filepath.Join(t.TempDir(), "inputs"), Noun: "input", Ext: ".in", One: maxHeld, Max: 2 * maxHeld, Loose: true})
	if err != nil {
		t.Fatal(err)
	}
	h, err := (&Node{inputs: inputs}).holdOutput()
	if err != nil {
		t.Fatal(err)
	}
	defer h.discard()
	out, log := heldWriter{h, h.out}, heldWriter{h, h.log}
	half := bytes.Repeat([]byte("0123456789abcdef"), maxHeld/32)
	for _, w := range []io.Writer{out, log} {
		if n, err := w.Write(half); n != len(half) || err != nil {
			t.Fatal(n, err)
		}
	}
	for _, w := range []io.Writer{out, log} {
		if _, err := w.Write([]byte{1}); mesh.KindOf(err) != mesh.TooLarge {
			t.Errorf("one byte more: %v", err)
		}
	}
	for _, w := range []*blob.Writer{h.out, h.log} {
		if b, err := io.ReadAll(w.Section(maxHeld)); err != nil || !bytes.Equal(b, half) {
			t.Errorf("%d bytes came out, %v", len(b), err)
		}
	}
}
