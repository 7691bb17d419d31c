package wasm

import (
	"bytes"
	"strings"
	"testing"

	"peercompute/pkg/mesh"
)

const wordcountGuest = "peercompute/examples/wordcount"

func TestRunPassesStreamsAndStatus(t *testing.T) {
	r := newRig(t, Limits{})
	digest := r.shelf.put(guests.build(t, wordcountGuest))
	var out, errs bytes.Buffer
	exit, err := r.Run(t.Context(), r.workload(digest, mesh.Job, func(s *mesh.Spec) { s.Args = []string{"-exit", "7"} }), strings.NewReader("one two\nthree\n"), &out, &errs)
	if err != nil || exit.Code != 7 || exit.Kind != 0 {
		t.Fatalf("got %+v, %v; %s", exit, err, &errs)
	}
	if got, want := out.String(), "2 lines, 3 words, 14 bytes\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if exit.PeakMemory == 0 {
		t.Error("no peak memory")
	}
}
