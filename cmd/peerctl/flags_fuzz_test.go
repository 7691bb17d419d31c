package main

import (
	"slices"
	"strings"
	"testing"

	"peercompute/pkg/mesh"
)

// What the flags of a grant take is in range, and what they refuse changes nothing.
func FuzzGrantFlags(f *testing.F) {
	for _, s := range []string{"deploy,observe", "none", "", "deploy,deploy", "60/min", "1/s", "1h30m", "-1s", "9223372036854775807/s", "65535", "0", "1e9h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if list, err := parseRights(s); err == nil {
			if !slices.IsSorted(list) || len(slices.Compact(slices.Clone(list))) != len(list) {
				t.Fatalf("rights %v", list)
			}
			for _, r := range list {
				if !slices.Contains(rights(), r) {
					t.Fatalf("right %q", r)
				}
			}
		}
		if n, err := parseRate(s); err == nil && n < 0 {
			t.Fatalf("rate %q is %d a minute", s, n)
		}
		if d, err := parseDuration(s); err == nil && d <= 0 {
			t.Fatalf("duration %q is %s", s, d)
		}
		if p, err := parsePort(s); err == nil && p == 0 {
			t.Fatalf("port %q is 0", s)
		}
		if n, err := parseCount(s); err == nil && n < 0 {
			t.Fatalf("count %q is %d", s, n)
		}
		if n, err := parseCPUs(s); err == nil && n < 0 {
			t.Fatalf("processor %q is %d", s, n)
		}
	})
}

// An address and the ID in it are taken apart without loss.
func FuzzNewPeer(f *testing.F) {
	f.Add("/ip4/192.0.2.7/tcp/4001/p2p/"+idBob, "/ip4/192.0.2.8/tcp/1")
	f.Add(idBob, "/p2p/"+idBob)
	f.Add("/p2p//", "")
	f.Fuzz(func(t *testing.T, who, addr string) {
		add, err := newPeer(who, []string{addr})
		if err != nil {
			return
		}
		if !strings.Contains(who, add.ID) {
			t.Fatalf("%q is taken for %s", who, add.ID)
		}
		for _, a := range add.Addrs {
			if strings.HasSuffix(a, "/p2p/"+add.ID) || !strings.HasPrefix(a, "/") {
				t.Fatalf("address %q", a)
			}
		}
	})
}

// What is taken for a volume can be mounted, and is never a directory of the host.
func FuzzVolume(f *testing.F) {
	for _, s := range []string{"data:/data", "data:/data:ro,size=2G", "data:/data:size=2G:rw", "/etc:/etc", "data:/proc", "a:/b:", "a:/b/../proc", "a::", "a:/b:size=0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := parseVolume(s)
		if err != nil {
			return
		}
		spec := mesh.Spec{Name: "x", Runtime: mesh.Container, Image: "x", Volumes: []mesh.VolumeMount{m}}
		if err := spec.Validate(); err != nil || !mesh.ValidLabel(m.Name) || !strings.HasPrefix(s, m.Name+":"+m.Target) {
			t.Fatalf("%q is taken for %+v: %v", s, m, err)
		}
	})
}
