package admission

import (
	"strings"
	"testing"

	"peercompute/pkg/mesh"
	"peercompute/pkg/trust"
)

func TestImages(t *testing.T) {
	a, b := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64)
	for _, c := range []struct {
		patterns, image, digest string
		want                    bool
	}{
		{"any", "whatever:1", "", true},
		{"", "nginx", "", false},
		{"nginx", "nginx", "", true},
		{"nginx", "nginx:1.29", "", true},
		{"nginx", "docker.io/library/nginx:1.29", "", true},
		{"docker.io/library/nginx", "nginx", "", true},
		{"nginx", "evil/nginx", "", false},
		{"nginx", "ghcr.io/library/nginx", "", false},
		{"nginx", "nginx-evil", "", false},
		{"nginx:1.*", "nginx:1.29", "", true},
		{"nginx:1.*", "nginx:2.0", "", false},
		{"nginx:1.*", "nginx", "", false}, // is nginx:latest
		{"nginx:latest", "nginx", "", true},
		{"nginx:1.*", "nginx:1.29@" + a, "", false}, // the tag decides nothing
		{"nginx", "nginx:1.29@" + a, "", true},
		{"ghcr.io/acme/", "ghcr.io/acme/web:2", "", true},
		{"ghcr.io/acme/", "ghcr.io/acme/team/web:2", "", true},
		{"ghcr.io/acme/", "ghcr.io/acme-evil/web", "", false},
		{"ghcr.io/acme/*", "ghcr.io/acme/web:2", "", true},
		{"ghcr.io/acme/*", "ghcr.io/acme/team/web", "", false},
		{"ghcr.io/acme/", "evil.io/ghcr.io/acme/web", "", false},
		{"acme/", "acme/web", "", true},
		{"acme/", "evil.io/acme/web", "", false},
		{a, "nginx", "", false},
		{a, "nginx", a, true},
		{a, "nginx", b, false},
		{a, "nginx@" + a, "", true},
		{a, "nginx@" + a, b, false}, // what the spec pins counts
		{a, a, "", true},
		{a, b, "", false},
		{"redis," + a, "nginx@" + a, "", true},
		{"wasm", "nginx", "", false},
		{"any", "not a reference !", "", true}, // the runtime says what is wrong with it
		{"*", "UPPER:case:x", "", false},
		{"[", "nginx", "", false},
		{"sha256:short", "sha256:short", "", false},
	} {
		var list []string
		if c.patterns != "" {
			list = strings.Split(c.patterns, ",")
		}
		s := mesh.Spec{Runtime: mesh.Container, Image: c.image, Digest: c.digest}
		if got := imageAllowed(list, s); got != c.want {
			t.Errorf("%q allows image %q pinned %q: %t, want %t", c.patterns, c.image, c.digest, got, c.want)
		}
	}
}

// A module's name is whatever its sender calls it: only its digest counts.
func TestModules(t *testing.T) {
	a := "sha256:" + strings.Repeat("a", 64)
	s := mesh.Spec{Runtime: mesh.Wasm, Image: "nginx", Digest: a}
	for patterns, want := range map[string]bool{"any": true, "wasm": true, a: true, "nginx": false, "*": false, "sha256:" + strings.Repeat("b", 64): false} {
		if got := imageAllowed([]string{patterns}, s); got != want {
			t.Errorf("%q allows the module: %t, want %t", patterns, got, want)
		}
	}
	d := images(trust.Grant{}, s)
	if d.Pass || !strings.Contains(d.Reason, "none") || d.Ask != "--images "+a {
		t.Errorf("a grant of nothing says %+v", d)
	}
}

func TestEgress(t *testing.T) {
	g := trust.Grant{Quota: trust.Quota{Egress: []string{"allow"}}}
	for egressOf, want := range map[mesh.Egress]bool{"": true, "none": true, "allow": true, "allow:192.0.2.0/24": true, "internet": false, "lan": false, "none-but-more": false} {
		if got := egress(g, mesh.Spec{Egress: egressOf}).Pass; got != want {
			t.Errorf("egress %q passes: %t, want %t", egressOf, got, want)
		}
	}
}

func FuzzImageNames(f *testing.F) {
	f.Add("nginx:1.29", "nginx")
	f.Add("ghcr.io/a/b@sha256:"+strings.Repeat("a", 64), "ghcr.io/a/")
	f.Fuzz(func(t *testing.T, ref, pattern string) {
		digest, names := imageNames(ref)
		if digest != "" && !strings.Contains(ref, digest) {
			t.Errorf("%q has the digest %q", ref, digest)
		}
		for _, n := range names {
			_ = nameMatches(pattern, n)
		}
		// A pattern that names one registry never lets another one's image in.
		if imageAllowed([]string{"ghcr.io/acme/"}, mesh.Spec{Runtime: mesh.Container, Image: ref}) && !strings.HasPrefix(strings.TrimSpace(ref), "ghcr.io/acme/") {
			t.Errorf("%q passes for an image of ghcr.io/acme", ref)
		}
	})
}

func TestFuelIsWritten(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1 k", 1_000_000_001: "1.1 G", 10_000_000_000: "10 G", 100_000_000_000_000: "100 T", 1<<64 - 1: "18446.8 P"} {
		if got := Fuel(n); got != want {
			t.Errorf("%d is written %q, want %q", n, got, want)
		}
	}
}

// A list of hosts needs egress allow, and an address that is not public needs more.
func TestHostsNeedGrants(t *testing.T) {
	for _, tc := range []struct {
		name   string
		hosts  []string
		grants []string
		want   bool
		ask    string
	}{
		{"a name", []string{"api.example.org:443"}, []string{"allow"}, true, ""},
		{"nothing granted", []string{"api.example.org:443"}, nil, false, "--egress allow"},
		{"something else granted", []string{"api.example.org:443"}, []string{"internet"}, false, "--egress internet,allow"},
		{"loopback", []string{"api.example.org:443", "127.0.0.1:80"}, []string{"allow"}, false, "--egress allow,private"},
		{"the metadata service", []string{"169.254.169.254:80"}, []string{"allow"}, false, "--egress allow,private"},
		{"loopback, granted", []string{"[::1]:80"}, []string{"allow", "private"}, true, ""},
		{"private without allow", []string{"10.0.0.1:80"}, []string{"private"}, false, "--egress private,allow"},
		{"what cannot be read", []string{"127.1:80"}, []string{"allow"}, false, "--egress allow,private"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, g, _, u := ample()
			s := mesh.Spec{Runtime: mesh.Wasm, Name: "x", Egress: mesh.EgressAllow, Hosts: tc.hosts}.WithDefaults()
			g.Quota.Egress = tc.grants
			d := Decide(p, g, s, u)
			if d.Allow != tc.want || !tc.want && (d.Rule != "grant.egress" || d.Ask != tc.ask) {
				t.Errorf("got %+v, want %v and to ask for %q", d, tc.want, tc.ask)
			}
		})
	}
}
