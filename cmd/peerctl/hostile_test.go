package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

// TestHostileText puts control sequences where another machine chooses the text,
// and wants none of them to reach the terminal.
func TestHostileText(t *testing.T) {
	const evil = "\x1b]0;title\x07\u009b2J\u202e"
	n, home := newFake(t)
	n.peers[1].Name += evil
	n.store(control.Workload{
		ID: "aaaaaaaaaaaaaaaa", Name: "x" + evil, Peer: "bob" + evil, PeerID: mustPeer(idBob), Owner: evil, OwnerID: mustPeer(idBob),
		Image: evil, URL: "https://" + evil, State: mesh.State("running" + evil), Status: mesh.Status{Reason: evil},
		Spec: &mesh.Spec{Args: []string{evil}, Env: []string{evil + "=1"}, Restart: mesh.Restart(evil)},
	})
	for _, args := range [][]string{
		{"ps"},
		{"inspect", "aaaa"},
		{"status"},
		{"peers", "ls"},
		{"peers", "remove", idGate[:16]},
		{"unpublish", "aaaa"},
		{"publish", "aaaa"},
		{"rm", "aaaa"},
		{"deploy", "missing:" + evil},
		{"deploy", "crash:" + evil},
		{"stop", "aaaa"},
		{"__complete", "stop", ""},
	} {
		s := testStdio()
		var said strings.Builder
		s.out, s.err = &said, &said
		run(context.Background(), append([]string{"--home", home}, args...), s)
		if said.Len() == 0 {
			t.Errorf("%q: said nothing", args)
		}
		for _, r := range said.String() {
			if unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.Is(unicode.Bidi_Control, r) {
				t.Errorf("%q: %U reached the terminal in %q", args, r, said.String())
				break
			}
		}
	}
}

// TestModuleChangedMeanwhile uploads a file that is built again in between.
func TestModuleChangedMeanwhile(t *testing.T) {
	_, home := newFake(t)
	path := filepath.Join(t.TempDir(), "app.wasm")
	write(t, path, coreHeader)
	mod, err := openModule(path)
	if err != nil {
		t.Fatal(err)
	}
	defer mod.Close()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("more"); err != nil {
		t.Fatal(err)
	}
	c := control.NewClient(home)
	defer c.Close()
	p, _, _ := testProgress(false)
	if err := mod.upload(t.Context(), c, p); mesh.KindOf(err) != mesh.Conflict {
		t.Errorf("error %v, want a conflict", err)
	}
}
