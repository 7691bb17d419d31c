package wasm

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/mesh"
)

const wordcountGuest = "peercompute/examples/wordcount"

func TestRunPassesStreamsAndStatus(t *testing.T) {
	r := newGoRig(t, Limits{})
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

func TestRunEnds(t *testing.T) {
	r := newRig(t, Limits{WorkerMemory: 256 << 20})
	for _, tc := range []struct {
		name   string
		module []byte
		change func(*mesh.Spec)
		want   mesh.Exit // Fuel and PeakMemory: at least
		out    string
	}{
		{name: "by itself", module: sayModule("hello"), out: "hello"},
		{name: "with a status", module: exitModule(3), want: mesh.Exit{Code: 3}},
		{name: "at a trap", module: trapModule(), want: mesh.Exit{Code: 134, Kind: mesh.Trap, Reason: "trap: unreachable"}},
		{
			name: "out of fuel", module: spinModule("begun"), change: func(s *mesh.Spec) { s.Resources.Fuel = 50_000_000 }, out: "begun",
			want: mesh.Exit{Code: 137, Kind: mesh.OutOfFuel, Reason: "out of fuel", Fuel: 50_000_000},
		},
		{
			name: "past its time", module: spinModule(""), change: func(s *mesh.Spec) { s.Timeout = 100 * time.Millisecond; s.Resources.Fuel = 1 << 60 },
			want: mesh.Exit{Code: 137, Kind: mesh.Timeout, Reason: "deadline passed", Fuel: 1_000_000},
		},
		{
			name: "out of memory", module: eatModule(), change: func(s *mesh.Spec) { s.Resources.Memory = 64 << 20 },
			want: mesh.Exit{Code: 134, Kind: mesh.OutOfMemory, Reason: "out of memory: limit 64 MiB", PeakMemory: 60 << 20},
		},
		{
			name: "out of all its worker's memory", module: eatModule(), change: func(s *mesh.Spec) { s.Resources.Memory = 1 << 30 },
			want: mesh.Exit{Code: 134, Kind: mesh.OutOfMemory, Reason: "out of memory: all guests of this peer share 256 MiB", PeakMemory: 200 << 20},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			exit, err := r.Run(t.Context(), r.workload(r.shelf.bytes(tc.module), mesh.Job, tc.change), strings.NewReader(""), &out, &errs)
			if err != nil {
				t.Fatal(err)
			}
			if exit.Code != tc.want.Code || exit.Kind != tc.want.Kind || exit.Reason != tc.want.Reason {
				t.Errorf("got %+v, want %+v", exit, tc.want)
			}
			if exit.Fuel < tc.want.Fuel || exit.PeakMemory < tc.want.PeakMemory {
				t.Errorf("got %d units, %d bytes; want at least %d, %d", exit.Fuel, exit.PeakMemory, tc.want.Fuel, tc.want.PeakMemory)
			}
			if out.String() != tc.out {
				t.Errorf("output %q, want %q", &out, tc.out)
			}
		})
	}
}
