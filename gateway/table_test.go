package gateway

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"peercompute/pkg/mesh"
)

func TestParseHost(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, tc := range []struct {
		host, label string
		kind        hostKind
	}{
		{"web-abc.apps.example.org", "web-abc", hostLabel},
		{"WEB-abc.Apps.Example.ORG", "web-abc", hostLabel},
		{"web-abc.apps.example.org.", "web-abc", hostLabel},
		{"web-abc.apps.example.org:8080", "web-abc", hostLabel},
		{"web-abc.apps.example.org.:80", "web-abc", hostLabel},
		{"web-abc.apps.example.org:", "web-abc", hostLabel},
		{long + ".apps.example.org", long, hostLabel},
		{long + "a.apps.example.org", "", hostForeign},
		{"apps.example.org", "", hostApex},
		{"apps.example.org.", "", hostApex},
		{"apps.example.org:443", "", hostApex},
		{"a.b.apps.example.org", "", hostForeign},
		{".apps.example.org", "", hostForeign},
		{"-a.apps.example.org", "", hostForeign},
		{"a-.apps.example.org", "", hostForeign},
		{"a..apps.example.org", "", hostForeign},
		{"xapps.example.org", "", hostForeign},
		{"abcapps.example.org", "", hostForeign},
		{"web-abc.apps.example.org.evil.org", "", hostForeign},
		{"web-abc.apps.example.org..", "", hostForeign},
		{"example.org", "", hostForeign},
		{"127.0.0.1:80", "", hostForeign},
		{"[::1]:80", "", hostForeign},
		{"[::1]", "", hostForeign},
		{"a_b.apps.example.org", "", hostForeign},
		{"", "", hostInvalid},
		{":80", "", hostInvalid},
		{"a.apps.example.org:80x", "", hostInvalid},
		{"a.apps.example.org:123456", "", hostInvalid},
		{"a.apps.example.org/x", "", hostInvalid},
		{"a@b.apps.example.org", "", hostInvalid},
		{"a b.apps.example.org", "", hostInvalid},
		{"a\x00.apps.example.org", "", hostInvalid},
		{"ä.apps.example.org", "", hostInvalid},
		{strings.Repeat("a", 300), "", hostInvalid},
	} {
		if label, kind := parseHost(tc.host, "apps.example.org"); label != tc.label || kind != tc.kind {
			t.Errorf("%q: label %q, kind %d; want %q, %d", tc.host, label, kind, tc.label, tc.kind)
		}
	}
}

func FuzzParseHost(f *testing.F) {
	for _, s := range []string{"a.localhost", "A.localhost.:80", "localhost", "[::1]:80", "a.b.localhost", "-.localhost"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, host string) {
		label, kind := parseHost(host, "localhost")
		if (kind == hostLabel) != (label != "") {
			t.Fatalf("%q: label %q with kind %d", host, label, kind)
		}
		if kind != hostLabel {
			return
		}
		if len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" ||
			label[0] == '-' || label[len(label)-1] == '-' {
			t.Fatalf("%q: label %q is not a DNS label", host, label)
		}
		rest := strings.ToLower(host)[len(label):]
		if !strings.HasPrefix(strings.ToLower(host), label) || !strings.HasPrefix(rest, ".localhost") {
			t.Fatalf("%q is not %q under the domain", host, label)
		}
	})
}

const (
	workloadA = mesh.WorkloadID("aaaaaaaaaaaaaaaa")
	workloadB = mesh.WorkloadID("bbbbbbbbbbbbbbbb")
)

func newTestTable(t *testing.T, cfg TableConfig) *Table {
	t.Helper()
	cfg.Domain = "localhost"
	table, err := NewTable(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestTable(t *testing.T) {
	table := newTestTable(t, TableConfig{})
	r, err := table.Set(Route{Publisher: "p1", Workload: workloadA, Name: "web"})
	if err != nil || r.Label != mesh.Label("web", "p1", workloadA) {
		t.Fatalf("set: %+v, %v", r, err)
	}
	if again, err := table.Set(Route{Publisher: "p1", Workload: workloadA, Name: "web"}); err != nil || again != r {
		t.Errorf("set again: %+v, %v", again, err)
	}
	// A label that the caller brings along counts for nothing.
	if other, err := table.Set(Route{Label: r.Label, Publisher: "p2", Workload: workloadA, Name: "web"}); err != nil || other.Label == r.Label {
		t.Errorf("another publisher got %+v, %v", other, err)
	}
	if got, ok := table.Lookup(strings.ToUpper(r.Label) + ".localhost:80"); !ok || got != r {
		t.Errorf("look-up: %+v, %v", got, ok)
	}
	renamed, err := table.Set(Route{Publisher: "p1", Workload: workloadA, Name: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := table.Lookup(r.Label + ".localhost"); ok {
		t.Error("the old name of a renamed workload is still routed")
	}
	if _, ok := table.Lookup(renamed.Label + ".localhost"); !ok || len(table.List()) != 2 {
		t.Errorf("after the renaming: %v", table.List())
	}
	if table.Withdraw("p2", workloadB) {
		t.Error("withdrew what was never there")
	}
	if !table.Withdraw("p1", workloadA) || len(table.List()) != 1 {
		t.Errorf("after the withdrawal: %v", table.List())
	}
	if n := table.WithdrawAll("p2"); n != 1 || len(table.List()) != 0 || len(table.tunnels) != 0 {
		t.Errorf("withdrew %d, left %v, %d tunnels", n, table.List(), len(table.tunnels))
	}
}

func TestTableRefuses(t *testing.T) {
	table := newTestTable(t, TableConfig{MaxPublisher: 2, MaxRoutes: 3})
	id := func(i int) mesh.WorkloadID { return mesh.WorkloadID(strings.Repeat("a", 15) + string(rune('a'+i))) }
	for name, tc := range map[string]struct {
		r    Route
		kind mesh.Kind
	}{
		"no publisher": {Route{Workload: workloadA, Name: "web"}, mesh.Invalid},
		"no workload":  {Route{Publisher: "p", Name: "web"}, mesh.Invalid},
		"bad name":     {Route{Publisher: "p", Workload: workloadA, Name: "a.b"}, mesh.Invalid},
		"long name":    {Route{Publisher: "p", Workload: workloadA, Name: strings.Repeat("a", 41)}, mesh.Invalid},
	} {
		if _, err := table.Set(tc.r); mesh.KindOf(err) != tc.kind || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range 2 {
		if _, err := table.Set(Route{Publisher: "p", Workload: id(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := table.Set(Route{Publisher: "p", Workload: id(2)}); mesh.KindOf(err) != mesh.Quota {
		t.Errorf("over the publisher's limit: %v", err)
	}
	if _, err := table.Set(Route{Publisher: "p", Workload: id(1), Name: "renamed"}); err != nil {
		t.Errorf("a rename at the limit: %v", err)
	}
	if _, err := table.Set(Route{Publisher: "q", Workload: id(0)}); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Set(Route{Publisher: "q", Workload: id(1)}); mesh.KindOf(err) != mesh.Overloaded {
		t.Errorf("over the table's limit: %v", err)
	}
	for _, domain := range []string{"", ".", "a.", ".a", "A.org", "a b", "a_b", "a..b", "-a.org", "a.org:80", strings.Repeat("a", 64)} {
		if _, err := NewTable(TableConfig{Domain: domain}); err == nil {
			t.Errorf("domain %q was accepted", domain)
		}
	}
}

// The routes of both keys of a publisher count together, also where the new one had some
// before the old one's came to it.
func TestRekeyCountsAllRoutes(t *testing.T) {
	table := newTestTable(t, TableConfig{MaxPublisher: 3})
	id := func(i int) mesh.WorkloadID { return mesh.WorkloadID(strings.Repeat("a", 15) + string(rune('a'+i))) }
	for i, p := range []mesh.PeerID{"old", "old", "new"} {
		if _, err := table.Set(Route{Publisher: p, First: "old", Workload: id(i)}); err != nil {
			t.Fatal(err)
		}
	}
	table.Rekey("old", "new")
	for i := range 2 {
		if !table.Withdraw("new", id(i)) {
			t.Fatal("a route was left behind")
		}
	}
	for i := range 2 {
		if _, err := table.Set(Route{Publisher: "new", First: "old", Workload: id(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := table.Set(Route{Publisher: "new", First: "old", Workload: id(3)}); mesh.KindOf(err) != mesh.Quota {
		t.Errorf("one over the limit: %v", err)
	}
	if n := table.WithdrawAll("new"); n != 3 || len(table.tunnels) != 0 {
		t.Errorf("withdrew %d, and %d tunnels are left", n, len(table.tunnels))
	}
}

// TestTableRaces claims, looks up and withdraws at once: a look-up must never
// find a label with another publisher.
func TestTableRaces(t *testing.T) {
	table := newTestTable(t, TableConfig{})
	labels := map[string]mesh.PeerID{}
	for p := range 4 {
		id := mesh.PeerID(fmt.Sprint("peer", p))
		labels[mesh.Label("web", id, workloadA)] = id
	}
	var wg sync.WaitGroup
	for p := range 4 {
		wg.Go(func() {
			id := mesh.PeerID(fmt.Sprint("peer", p))
			for range 1000 {
				if _, err := table.Set(Route{Publisher: id, Workload: workloadA, Name: "web"}); err != nil {
					t.Error(err)
				}
				table.WithdrawAll(id)
			}
		})
		wg.Go(func() {
			for range 1000 {
				for label, owner := range labels {
					if r, ok := table.Lookup(label + ".localhost"); ok && r.Publisher != owner {
						t.Errorf("%s goes to %s, is %s's", label, r.Publisher, owner)
					}
				}
			}
		})
	}
	wg.Wait()
	if len(table.List()) != 0 || len(table.tunnels) != 0 {
		t.Errorf("left: %v", table.List())
	}
}

func TestLimiters(t *testing.T) {
	if !newLimiters[string](0, 10).allow("a", time.Now()) {
		t.Error("a rate of 0 refuses")
	}
	now := time.Unix(1000, 0)
	l := newLimiters[string](1, 4)
	for i, want := range []bool{true, true, false} {
		if got := l.allow("a", now); got != want {
			t.Errorf("request %d: %v", i, got)
		}
	}
	if !l.allow("b", now) {
		t.Error("one key's requests count against another")
	}
	if !l.allow("a", now.Add(time.Second)) {
		t.Error("a token does not come back")
	}
	for i := range 1000 {
		l.allow(fmt.Sprint(i), now)
		l.allow("a", now) // stays, since it is used
	}
	if n := len(l.young) + len(l.old); n > 9 {
		t.Errorf("%d buckets are kept, want at most twice 4 and one", n)
	}
	if l.allow("a", now) {
		t.Error("a busy key's bucket was forgotten")
	}
}

func TestClientKey(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.7:1234":                       "192.0.2.7",
		"[::ffff:192.0.2.7]:1234":              "192.0.2.7",
		"[2001:db8:1:2:3:4:5:6]:80":            "2001:db8:1:2::",
		"[2001:db8:1:2:ffff::]:80":             "2001:db8:1:2::",
		"[fe80::1%eth0]:80":                    "fe80::",
		"not an address, so all share a limit": "::",
	} {
		if got := clientKey(clientAddr(remote)); got != netip.MustParseAddr(want) {
			t.Errorf("%s counts as %s, want %s", remote, got, want)
		}
	}
}

func FuzzConfineCookie(f *testing.F) {
	f.Add("a=1; Domain=localhost")
	f.Add("a=1;DOMAIN = .localhost;x")
	f.Add("domain=localhost")
	f.Fuzz(func(t *testing.T, cookie string) {
		for i, part := range strings.Split(confineCookie(cookie, "web.localhost"), ";") {
			name, value, _ := strings.Cut(part, "=")
			value = strings.TrimPrefix(strings.ToLower(strings.Trim(value, " \t")), ".")
			if i > 0 && strings.EqualFold(strings.Trim(name, " \t"), "domain") && value != "web.localhost" {
				t.Fatalf("%q leaves Domain=%q", cookie, value)
			}
		}
	})
}
