package main

import (
	"strings"
	"testing"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

func testProgress(live bool) (*progress, *strings.Builder, *time.Time) {
	var out strings.Builder
	now := time.Unix(1000, 0)
	return &progress{w: &out, live: live, now: func() time.Time { return now }}, &out, &now
}

func TestProgressPlain(t *testing.T) {
	p, out, now := testProgress(false)
	for i := range int64(100) { // ten seconds of a transfer, told of ten times a second
		p.bytes("uploading app.wasm", i<<20, 100<<20)
		*now = now.Add(100 * time.Millisecond)
	}
	want := "uploading app.wasm   10%  10 MiB of 100 MiB\nuploading app.wasm   60%  60 MiB of 100 MiB\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out, want)
	}
	p.clear()
	if strings.ContainsAny(out.String(), "\r\x1b") {
		t.Error("control characters although it is no terminal")
	}
}

func TestProgressQuickIsSilent(t *testing.T) {
	for _, live := range []bool{true, false} {
		p, out, now := testProgress(live)
		p.bytes("uploading app.wasm", 1, 2)
		*now = now.Add(patience - 1)
		p.bytes("uploading app.wasm", 2, 2)
		p.clear()
		if out.Len() != 0 {
			t.Errorf("live %t: said %q of something quick", live, out)
		}
	}
}

func TestProgressLiveLeavesNothing(t *testing.T) {
	p, out, now := testProgress(true)
	p.workload(control.Workload{Name: "web", Peer: "bob", State: mesh.Pulling})
	p.workload(control.Workload{Name: "web", Peer: "bob", State: mesh.Pulling}) // no change, no line
	p.bytes("pulling "+strings.Repeat("long", 30), 1, 0)
	*now = now.Add(2 * time.Second)
	p.bytes("pulling "+strings.Repeat("long", 30), 5<<20, 0)
	p.clear()
	p.clear()
	lines := strings.Split(out.String(), "\r\x1b[K")
	if len(lines) != 4 || lines[1] != "web: pulling on bob" || lines[3] != "" {
		t.Fatalf("got %q", lines)
	}
	if n := len([]rune(lines[2])); n > 79 {
		t.Errorf("a line of %d characters would wrap", n)
	}
	if strings.Contains(out.String(), "\n") {
		t.Error("a redrawn line must not scroll")
	}
}

func TestProgressQuiet(t *testing.T) {
	p, out, now := testProgress(false)
	p.quiet = true
	p.workload(control.Workload{Name: "web", State: mesh.Pulling})
	p.bytes("x", 1, 2)
	*now = now.Add(time.Minute)
	p.bytes("x", 2, 2)
	if out.Len() != 0 {
		t.Errorf("said %q beside JSON", out)
	}
}
