package admission

import (
	"strings"
	"testing"

	"peercompute/pkg/mesh"
	"peercompute/pkg/trust"
)

func someone(b string) mesh.PeerID {
	return mesh.PeerID("\x00\x24\x08\x01\x12\x20" + strings.Repeat(b, 32))
}

// No pattern of names means a pushed image, whatever it looks like; and nobody
// means another's.
func TestPushedImages(t *testing.T) {
	alice, bob := someone("a"), someone("b")
	x, y := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64)
	mine := mesh.PushedRef(alice, x)
	for _, c := range []struct {
		patterns, image, digest string
		want                    bool
	}{
		{"any", mine, x, true},
		{"pushed", mine, x, true},
		{"nginx,pushed", mine, x, true},
		{x, mine, x, true},
		{y, mine, x, false},
		{"", mine, x, false},
		{"wasm", mine, x, false},
		{"nginx", mine, x, false},
		{"*", mine, x, false},
		{"*/*", mine, x, false},
		{"*/*:*", mine, x, false},
		{"peercompute.invalid/", mine, x, false},
		{mesh.PushedRepository(alice), mine, x, false},
		{mine, mine, x, false},
		{"any", mine, "", false}, // not pinned
		{"any", mine, y, false},
		{x, mine, y, false},
		{"any,pushed", mesh.PushedRef(bob, x), x, false},
		{x, mesh.PushedRef(bob, x), x, false},
		{"any", "peercompute.invalid/nginx:1.29", x, false},
		{"any", mesh.PushedRepository(alice) + "@" + x, x, false},
		{"any", mesh.PushedRepository(alice), x, false},
		{"any", "PeerCompute.invalid/nginx", x, false},
		{"any", "peercompute.invalid:443/nginx", x, false},
		// "pushed" is not the name of an image.
		{"pushed", "pushed", "", false},
		{"pushed", "docker.io/library/pushed", "", false},
		{"pushed", "nginx", "", false},
	} {
		g := trust.Grant{Peer: alice, Quota: trust.Quota{Images: strings.FieldsFunc(c.patterns, func(r rune) bool { return r == ',' })}}
		s := mesh.Spec{Runtime: mesh.Container, Image: c.image, Digest: c.digest}
		if got := images(g, s); got.Pass != c.want || !got.Pass && got.Reason == "" {
			t.Errorf("%q allows %q pinned to %q: %+v, want %t", c.patterns, c.image, c.digest, got, c.want)
		}
	}
	// A peer whose key changed keeps what it pushed under the first.
	g := trust.Grant{Peer: bob, Origin: alice, Quota: trust.Quota{Images: []string{"pushed"}}}
	if !images(g, mesh.Spec{Runtime: mesh.Container, Image: mine, Digest: x}).Pass {
		t.Error("a changed key loses its images")
	}
	if images(trust.Grant{Quota: trust.Quota{Images: []string{"any"}}}, mesh.Spec{Runtime: mesh.Container, Image: mesh.PushedRef("", x), Digest: x}).Pass {
		t.Error("nobody may run nobody's image")
	}
}

// Whose layers a peer need not send, it can read: those of images that it may run.
func TestWhoseLayersMayBeUsed(t *testing.T) {
	alice, bob := someone("a"), someone("b")
	x := "sha256:" + strings.Repeat("a", 64)
	mine, theirs := mesh.PushedRef(alice, x), mesh.PushedRef(bob, x)
	for _, c := range []struct {
		patterns string
		names    []string
		want     bool
	}{
		{"any", []string{"nginx:1.29"}, true},
		{"any", nil, true},
		{"nginx", []string{"nginx:1.29"}, true},
		{"nginx", []string{"secret:1", "nginx:1.29"}, true},
		{"nginx", []string{"secret:1"}, false},
		{"nginx", nil, false},
		{"pushed", []string{"nginx:1.29"}, false},
		{"pushed", []string{mine}, true},
		{"", []string{mine}, true},
		{"any,pushed", []string{theirs}, false},
		{x, []string{theirs}, false},
		{"any", []string{theirs, "nginx:1"}, true},
		{"nginx", []string{theirs, mine}, true},
		{x, []string{"secret:1"}, true},
		{x, nil, true},
		{"", []string{"nginx"}, false},
	} {
		g := trust.Grant{Peer: alice, Quota: trust.Quota{Images: strings.FieldsFunc(c.patterns, func(r rune) bool { return r == ',' })}}
		if got := MayUseLayers(g, x, c.names); got != c.want {
			t.Errorf("%q may use the layers of %q: %t, want %t", c.patterns, c.names, got, c.want)
		}
	}
}

func TestDecidePush(t *testing.T) {
	x := "sha256:" + strings.Repeat("a", 64)
	p := Policy{Resources: mesh.Resources{Disk: 100}, Runtimes: []mesh.Runtime{mesh.Container}}
	g := trust.Grant{Peer: someone("a"), Allow: trust.Deploy, Quota: trust.Quota{Images: []string{"pushed"}, Resources: mesh.Resources{Disk: 50}}}
	if d := DecidePush(p, g, x, 50, Usage{}); !d.Allow {
		t.Fatalf("%+v", d)
	}
	for rule, change := range map[string]func(*Policy, *trust.Grant, *Usage){
		"grant.deploy":  func(_ *Policy, g *trust.Grant, _ *Usage) { g.Allow = trust.Observe },
		"host.paused":   func(p *Policy, _ *trust.Grant, _ *Usage) { p.Paused = &Closed{} },
		"host.schedule": func(p *Policy, _ *trust.Grant, _ *Usage) { p.Schedule = &Closed{} },
		"host.runtime":  func(p *Policy, _ *trust.Grant, _ *Usage) { p.Runtimes = nil },
		"grant.images":  func(_ *Policy, g *trust.Grant, _ *Usage) { g.Quota.Images = []string{"nginx"} },
		"grant.disk":    func(_ *Policy, _ *trust.Grant, u *Usage) { u.Peer.Resources.Disk = 1 },
		"host.disk":     func(_ *Policy, _ *trust.Grant, u *Usage) { u.Host.Resources.Disk = 51 },
	} {
		p, g, u := p, g, Usage{}
		change(&p, &g, &u)
		if d := DecidePush(p, g, x, 50, u); d.Allow || d.Rule != rule {
			t.Errorf("%s: %+v", rule, d)
		}
	}
	if d := DecidePush(Policy{}, trust.Grant{}, x, 0, Usage{}); d.Allow {
		t.Error("zero values allow")
	}
	if DecideImage(trust.Grant{}, mesh.Spec{Runtime: mesh.Container, Image: "nginx"}).Allow {
		t.Error("zero values allow an image")
	}
}
