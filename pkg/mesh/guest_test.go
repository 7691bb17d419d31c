package mesh

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestParseHost(t *testing.T) {
	for in, want := range map[string]string{
		"api.example.org:443": "api.example.org:443",
		"API.Example.org:80":  "api.example.org:80",
		"127.0.0.1:8080":      "127.0.0.1:8080",
		"[::1]:80":            "[::1]:80",
		"[::ffff:10.0.0.1]:1": "10.0.0.1:1",
		"xn--bcher-kva.de:1":  "xn--bcher-kva.de:1",
	} {
		h, err := ParseHost(in)
		if err != nil || h.String() != want {
			t.Errorf("%s: got %s, %v; want %s", in, h, err, want)
		}
		if again, err := ParseHost(h.String()); err != nil || again != h {
			t.Errorf("%s is not read as it was written: %v, %v", h, again, err)
		}
	}
	for _, in := range []string{
		"", "example.org", "example.org:", "example.org:0", "example.org:65536", "example.org:80:80", ":80", "*.example.org:443",
		"https://example.org:443", "example.org/x:443", "a..b:1", ".a:1", "a.:1", "-a.b:1", "a b:1", "127.1:80", "0x7f000001:80", "2130706433:80",
		"0.0x7f:1", "[fe80::1%eth0]:80", "user@example.org:80", "exa\x00mple.org:80", strings.Repeat("a", 64) + ".b:1", "é.org:1",
	} {
		if h, err := ParseHost(in); err == nil {
			t.Errorf("%q was read as %s", in, h)
		}
	}
}

func TestPublic(t *testing.T) {
	for _, a := range []string{"1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "193.0.0.1"} {
		if !Public(netip.MustParseAddr(a)) {
			t.Errorf("%s is public", a)
		}
	}
	for _, a := range []string{
		"127.0.0.1", "127.255.255.254", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "0.1.2.3",
		"224.0.0.1", "239.1.1.1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1", "192.0.0.8",
		"::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "fec0::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1",
		"64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::", "2001:0:1::1", "2001:db8::1",
	} {
		if Public(netip.MustParseAddr(a)) {
			t.Errorf("%s is not public", a)
		}
	}
	if Public(netip.Addr{}) {
		t.Error("no address is not public")
	}
}

func TestGuestSpec(t *testing.T) {
	good := Spec{Name: "a", Runtime: Wasm, Shape: HTTP, Digest: "sha256:" + strings.Repeat("0", 64)}
	for _, tc := range []struct {
		name   string
		change func(*Spec)
		want   string // part of the problem; "" = none
	}{
		{"nothing", func(*Spec) {}, ""},
		{"all of it", func(s *Spec) {
			s.Shape, s.Clock, s.Egress, s.Hosts, s.Concurrency = Server, ClockWall, EgressAllow, []string{"a.b:1"}, 3
			s.Idle, s.FuelDay, s.Resources.Disk = time.Minute, 5, 16<<20
		}, ""},
		{"a clock", func(s *Spec) { s.Clock = "true" }, "clock"},
		{"hosts without egress", func(s *Spec) { s.Hosts = []string{"a.b:1"} }, "go together"},
		{"egress without hosts", func(s *Spec) { s.Egress = EgressAllow }, "go together"},
		{"a bad host", func(s *Spec) { s.Egress, s.Hosts = EgressAllow, []string{"*"} }, "HOST:PORT"},
		{"many hosts", func(s *Spec) {
			s.Egress, s.Hosts = EgressAllow, strings.Split(strings.Repeat("a.b:1 ", 33)+"a.b:1", " ")
		}, "more than"},
		{"scratch", func(s *Spec) { s.Resources.Disk = MaxScratch + 1 }, "scratch"},
		{"concurrency", func(s *Spec) { s.Concurrency = -1 }, "concurrency"},
		{"idle of CGI", func(s *Spec) { s.Idle = time.Minute }, "servers only"},
		{"a short idle", func(s *Spec) { s.Shape, s.Idle = Server, time.Millisecond }, "idle time"},
		{"a job's concurrency", func(s *Spec) { s.Shape, s.Concurrency = Job, 2 }, "job"},
		{"a container's clock", func(s *Spec) { *s = Spec{Name: "a", Runtime: Container, Image: "x", Clock: ClockWall} }, "WASM guests only"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := good
			tc.change(&s)
			err := s.WithDefaults().Validate()
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func FuzzParseHost(f *testing.F) {
	f.Add("api.example.org:443")
	f.Add("[::1]:80")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := ParseHost(s)
		if err != nil {
			return
		}
		if again, err := ParseHost(h.String()); err != nil || again != h {
			t.Errorf("%q: %v, %v, %v", s, h, again, err)
		}
	})
}
