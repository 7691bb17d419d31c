package mesh

import (
	"slices"
	"strings"
	"testing"
)

func TestEgressOfContainers(t *testing.T) {
	good := Spec{Name: "a", Runtime: Container, Image: "x"}
	for _, tc := range []struct {
		name   string
		change func(*Spec)
		want   string // part of the problem; "" = none
	}{
		{"none", func(s *Spec) { s.Egress = EgressNone }, ""},
		{"internet", func(s *Spec) { s.Egress = EgressInternet }, ""},
		{"allow", func(s *Spec) { s.Egress, s.Hosts = EgressAllow, []string{"a.b:1", "192.0.2.1:2"} }, ""},
		{"a network", func(s *Spec) { s.Network = "shop" }, ""},
		{"something else", func(s *Spec) { s.Egress = "host" }, "not none, internet or allow"},
		{"allow nothing", func(s *Spec) { s.Egress = EgressAllow }, "go together"},
		{"hosts beside internet", func(s *Spec) { s.Egress, s.Hosts = EgressInternet, []string{"a.b:1"} }, "go together"},
		{"a bad host", func(s *Spec) { s.Egress, s.Hosts = EgressAllow, []string{"10.0.0.0/8:1"} }, "HOST:PORT"},
		{"a host of IPv6", func(s *Spec) { s.Egress, s.Hosts = EgressAllow, []string{"[2001:db8::1]:443"} }, "no IPv6"},
		{"many hosts", func(s *Spec) { s.Egress, s.Hosts = EgressAllow, slices.Repeat([]string{"a.b:1"}, MaxHosts+1) }, "more than"},
		{"a bad network", func(s *Spec) { s.Network = "../x" }, "DNS label"},
		{"a long network", func(s *Spec) { s.Network = strings.Repeat("a", MaxName+1) }, "DNS label"},
		{"a guest's network", func(s *Spec) { s.Runtime, s.Shape, s.Network = Wasm, HTTP, "shop" }, "containers only"},
		{"a guest's internet", func(s *Spec) { s.Runtime, s.Shape, s.Egress = Wasm, HTTP, EgressInternet }, "containers only"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := good
			tc.change(&s)
			if s.Runtime == Wasm {
				s.Digest = "sha256:" + strings.Repeat("0", 64)
			}
			err := s.WithDefaults().Validate()
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func FuzzParseEgress(f *testing.F) {
	for _, s := range []string{"none", "internet", "allow:a.example:443, 192.0.2.1:80", "allow", "allow:", "none:", "allow:[::1]:1,,"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, hosts, err := ParseEgress(text)
		if err != nil {
			if e != "" || hosts != nil {
				t.Errorf("%q: %v and %s %v", text, err, e, hosts)
			}
			return
		}
		if (e == EgressAllow) != (len(hosts) > 0) {
			t.Errorf("%q: %s %v", text, e, hosts)
		}
		for _, h := range hosts {
			if _, err := ParseHost(h); err != nil {
				t.Errorf("%q: %v", text, err)
			}
		}
	})
}
