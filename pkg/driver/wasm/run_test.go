package wasm

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync/atomic"
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
		{name: "in too deep", module: assemble("", call(3)), change: func(s *mesh.Spec) { s.Resources.Fuel = 1 << 60 }, want: mesh.Exit{Code: 134, Kind: mesh.Trap, Reason: "trap: stack overflow"}},
		{
			name: "out of fuel", module: spinModule("begun"), change: func(s *mesh.Spec) { s.Resources.Fuel = 50_000_000 }, out: "begun",
			want: mesh.Exit{Code: 137, Kind: mesh.OutOfFuel, Reason: "out of fuel", Fuel: 50_000_000},
		},
		{
			name: "past its time", module: spinModule(""), change: func(s *mesh.Spec) { s.Timeout = time.Second; s.Resources.Fuel = 1 << 60 },
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

// output runs a job and returns what it wrote.
func (r *rig) output(w mesh.Workload) (string, mesh.Exit) {
	r.t.Helper()
	var out, errs bytes.Buffer
	exit, err := r.Run(r.t.Context(), w, strings.NewReader(""), &out, &errs)
	if err != nil {
		r.t.Fatal(err)
	}
	return out.String(), exit
}

// endless is an input without end that counts what was taken of it.
type endless struct{ taken atomic.Int64 }

func (e *endless) Read(p []byte) (int, error) {
	e.taken.Add(int64(len(p)))
	return len(p), nil
}

func TestRunTakesNoMoreInputThanIsWanted(t *testing.T) {
	r := newRig(t, Limits{})
	var in endless
	exit, err := r.Run(t.Context(), r.workload(r.shelf.bytes(spinModule("")), mesh.Job, func(s *mesh.Spec) { s.Timeout = 200 * time.Millisecond }), &in, io.Discard, io.Discard)
	if err != nil || exit.Kind != mesh.Timeout {
		t.Errorf("got %+v, %v", exit, err)
	}
	if n := in.taken.Load(); n > 4<<20 {
		t.Errorf("%d bytes of input were taken that nobody read", n)
	}
}

// stuck is an output that nobody takes, until the test is over.
type stuck struct{ free chan struct{} }

func (s stuck) Write(p []byte) (int, error) { <-s.free; return 0, io.ErrClosedPipe }

func TestRunWaitsForItsReaderNoLongerThanItsTime(t *testing.T) {
	r := newRig(t, Limits{})
	out := stuck{make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	time.AfterFunc(2*time.Second, func() { close(out.free) })
	exit, err := r.Run(ctx, r.workload(r.shelf.bytes(floodModule(1, "all work and no play\n")), mesh.Job, func(s *mesh.Spec) { s.Timeout = 300 * time.Millisecond }), strings.NewReader(""), out, io.Discard)
	if err != nil || exit.Kind != mesh.Timeout {
		t.Errorf("got %+v, %v", exit, err)
	}
}

func TestRunEndsWithItsCaller(t *testing.T) {
	r := newRig(t, Limits{})
	w := r.workload(r.shelf.bytes(spinModule("begun")), mesh.Job, func(s *mesh.Spec) { s.Timeout = time.Minute; s.Resources.Fuel = 1 << 60 })
	ctx, cancel := context.WithCancel(t.Context())
	began := writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil })
	exit, err := r.Run(ctx, w, strings.NewReader(""), began, io.Discard)
	if err != nil || exit.Kind != mesh.Canceled {
		t.Errorf("got %+v, %v", exit, err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestBadModulesAreRefusedInWords(t *testing.T) {
	r := newRig(t, Limits{Module: 1 << 10})
	good := sayModule("x")
	imported := bytes.Replace(good, []byte("fd_write"), []byte("fd_wrote"), 1)
	for _, tc := range []struct {
		name   string
		module []byte
		kind   mesh.Kind
		want   string
	}{
		{"text", []byte("#!/bin/sh\necho\n"), mesh.Invalid, "not a WebAssembly module"},
		{"nothing", nil, mesh.Invalid, "not a WebAssembly module"},
		{"a component", []byte("\x00asm\x0d\x00\x01\x00"), mesh.Unsupported, "component"},
		{"a later version", []byte("\x00asm\x02\x00\x00\x00"), mesh.Unsupported, "version"},
		{"a torn file", good[:len(good)-3], mesh.Invalid, "malformed: a section is cut short"},
		{"wrong types", assemble("", i32(1)), mesh.Invalid, "not a valid"},
		{"no start", bytes.Replace(good, []byte("_start"), []byte("_stort"), 1), mesh.Invalid, "_start"},
		{"an unknown import", imported, mesh.Unsupported, "wasi_snapshot_preview1.fd_wrote"},
		{"too large", assemble(strings.Repeat("x", 2000), say(1, "x")), mesh.TooLarge, "limit of 1024"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := r.workload(r.shelf.bytes(tc.module), mesh.Job, nil)
			_, err := r.Prepare(t.Context(), w, nil)
			if e := mesh.AsError(err); err == nil || e.Kind != tc.kind || !strings.Contains(e.Msg, tc.want) {
				t.Errorf("got %v, want %s with %q", err, tc.kind, tc.want)
			}
			if _, err := r.Run(t.Context(), w, strings.NewReader(""), io.Discard, io.Discard); err == nil {
				t.Error("it ran all the same")
			}
		})
	}
}
