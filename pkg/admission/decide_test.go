package admission

import (
	"strings"
	"testing"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/trust"
)

func ample() (Policy, trust.Grant, mesh.Spec, Usage) {
	r := mesh.Resources{MilliCPU: 4000, Memory: 4 << 30, Disk: 4 << 30, PIDs: 1000, Fuel: 1 << 60}
	p := Policy{Workloads: 10, Resources: r, Runtimes: []mesh.Runtime{mesh.Container, mesh.Wasm}}
	g := trust.Grant{Peer: "p", Allow: trust.Deploy, Quota: trust.Unbounded(10, r)}
	return p, g, mesh.Spec{Runtime: mesh.Container, Image: "x", Name: "x"}.WithDefaults(), Usage{}
}

func TestZeroValuesDeny(t *testing.T) {
	p, g, s, u := ample()
	if d := Decide(p, g, s, u); !d.Allow {
		t.Fatalf("an ample grant denies: %+v", d)
	}
	for name, d := range map[string]Decision{
		"decision": {},
		"policy":   Decide(Policy{}, g, s, u),
		"grant":    Decide(p, trust.Grant{}, s, u),
		"quota":    Decide(p, trust.Grant{Allow: trust.Deploy}, s, u),
		"route":    DecideRoute(trust.Grant{}, 0),
	} {
		if d.Allow || d.Refusal("p") == nil {
			t.Errorf("a zero %s allows", name)
		}
	}
}

func TestEachLimit(t *testing.T) {
	for rule, spoil := range map[string]func(*Policy, *trust.Grant, *mesh.Spec, *Usage){
		"grant.deploy":    func(_ *Policy, g *trust.Grant, _ *mesh.Spec, _ *Usage) { g.Allow = trust.Observe | trust.Route },
		"grant.workloads": func(_ *Policy, _ *trust.Grant, _ *mesh.Spec, u *Usage) { u.Peer.Workloads = 10 },
		"grant.cpus": func(_ *Policy, _ *trust.Grant, s *mesh.Spec, _ *Usage) {
			s.Resources.MilliCPU, s.Resources.SharedCPU = 4001, false
		},
		"grant.memory": func(_ *Policy, g *trust.Grant, s *mesh.Spec, _ *Usage) {
			g.Quota.Resources.Memory = s.Resources.Memory - 1
		},
		"grant.disk":      func(_ *Policy, _ *trust.Grant, _ *mesh.Spec, u *Usage) { u.Peer.Resources.Disk = 4 << 30 },
		"grant.pids":      func(_ *Policy, _ *trust.Grant, s *mesh.Spec, _ *Usage) { s.Resources.PIDs = 1001 },
		"grant.fuel":      func(_ *Policy, _ *trust.Grant, s *mesh.Spec, _ *Usage) { s.Resources.Fuel = 1<<60 + 1 },
		"grant.images":    func(_ *Policy, g *trust.Grant, _ *mesh.Spec, _ *Usage) { g.Quota.Images = []string{"y"} },
		"grant.signed-by": func(_ *Policy, g *trust.Grant, _ *mesh.Spec, _ *Usage) { g.Quota.SignedBy = []string{"unreadable"} },
		"grant.egress": func(_ *Policy, g *trust.Grant, s *mesh.Spec, _ *Usage) {
			g.Quota.Egress, s.Egress = []string{"allow"}, "internet"
		},
		"grant.observe": func(_ *Policy, _ *trust.Grant, s *mesh.Spec, _ *Usage) { s.Clock = mesh.ClockWall },
		"grant.fuel-per-day": func(_ *Policy, g *trust.Grant, s *mesh.Spec, u *Usage) {
			*s = mesh.Spec{Runtime: mesh.Wasm, Name: "x"}.WithDefaults()
			g.Quota.FuelDay, u.FuelToday = s.Resources.Fuel, 1
		},
		"host.workloads": func(_ *Policy, _ *trust.Grant, _ *mesh.Spec, u *Usage) { u.Host.Workloads = 10 },
		"host.cpus":      func(_ *Policy, _ *trust.Grant, _ *mesh.Spec, u *Usage) { u.Host.Resources.MilliCPU = 3901 },
		"host.memory":    func(_ *Policy, _ *trust.Grant, _ *mesh.Spec, u *Usage) { u.Host.Resources.Memory = 4 << 30 },
		"host.disk":      func(_ *Policy, _ *trust.Grant, _ *mesh.Spec, u *Usage) { u.Host.Resources.Disk = 4 << 30 },
		"host.runtime":   func(p *Policy, _ *trust.Grant, _ *mesh.Spec, _ *Usage) { p.Runtimes = []mesh.Runtime{mesh.Wasm} },
		"host.paused":    func(p *Policy, _ *trust.Grant, _ *mesh.Spec, _ *Usage) { p.Paused = &Closed{Why: "x"} },
		"host.schedule":  func(p *Policy, _ *trust.Grant, _ *mesh.Spec, _ *Usage) { p.Schedule = &Closed{Opens: time.Unix(1, 0)} },
		"host.reserve": func(p *Policy, _ *trust.Grant, _ *mesh.Spec, _ *Usage) {
			p.Reserve = Reserve{Keep: 1, Total: 1 << 30, Available: 100 << 20}
		},
		"host.timeout": func(_ *Policy, _ *trust.Grant, s *mesh.Spec, _ *Usage) { s.Timeout = mesh.MaxTimeout + time.Second },
	} {
		p, g, s, u := ample()
		spoil(&p, &g, &s, &u)
		d := Decide(p, g, s, u)
		if d.Allow || d.Rule != rule {
			t.Errorf("%s: decided %+v", rule, d)
			continue
		}
		e := mesh.AsError(d.Refusal("12D3KooWx"))
		if e.Rule != rule || e.Msg == "" || (strings.HasPrefix(rule, "grant.") && d.Ask != "" && !strings.Contains(e.Hint, "peerctl peers allow")) {
			t.Errorf("%s: the refusal is %+v", rule, e)
		}
	}
}

// A quota cannot be passed by numbers that overflow.
func TestOverflow(t *testing.T) {
	p, g, s, u := ample()
	s.Resources.Memory = 1<<63 - 1
	u.Peer.Resources.Memory = 1 << 62
	if d := Decide(p, g, s, u); d.Allow {
		t.Fatal("an overflowing sum is allowed")
	}
	u.Peer.Resources.Memory = -1 << 63
	s.Resources.Memory = 1
	if d := Decide(p, g, s, u); d.Allow {
		t.Fatal("a negative sum is allowed")
	}
}

func TestRefusalNamesShortfallAndNextStep(t *testing.T) {
	p, g, s, u := ample()
	s.Resources.Memory = 2 << 30
	g.Quota.Resources.Memory = 1 << 30
	alice := peerID(t, 2)
	e := mesh.AsError(Decide(p, g, s, u).Refusal(alice))
	if want := "memory 2 GiB exceeds your grant of 1 GiB there"; e.Msg != want {
		t.Errorf("message %q, want %q", e.Msg, want)
	}
	if want := "ask its owner for: peerctl peers allow " + alice.String() + " --memory 2GiB"; e.Hint != want {
		t.Errorf("hint %q, want %q", e.Hint, want)
	}
}

func TestRoutes(t *testing.T) {
	g := trust.Grant{Allow: trust.Publish, Quota: trust.Quota{Names: 2}}
	if !DecideRoute(g, 1).Allow || DecideRoute(g, 2).Allow {
		t.Error("the quota of two names is not kept")
	}
	g.Allow = trust.Deploy | trust.Route
	if DecideRoute(g, 0).Allow {
		t.Error("names without the grant to publish")
	}
}

// The reserve holds against what workloads may take and against what is in use.
func TestReserve(t *testing.T) {
	for _, c := range []struct {
		r          Reserve
		want, held int64
		pass       bool
	}{
		{Reserve{}, 1 << 40, 1 << 40, true}, // nothing is reserved
		{Reserve{Keep: 2, Total: 10, Available: 10}, 8, 0, true},
		{Reserve{Keep: 2, Total: 10, Available: 10}, 9, 0, false},
		{Reserve{Keep: 2, Total: 10, Available: 10}, 4, 4, true},
		{Reserve{Keep: 2, Total: 10, Available: 10}, 5, 4, false},
		{Reserve{Keep: 2, Total: 10, Available: 5}, 3, 0, true},
		{Reserve{Keep: 2, Total: 10, Available: 5}, 4, 0, false},
		{Reserve{Keep: 2}, 0, 0, false}, // nothing is known of the machine
		{Reserve{Keep: -1, Total: 10, Available: 10}, 1, 0, false},
		{Reserve{Keep: 2, Total: 10, Available: 10}, -1, 0, false},
	} {
		if got := reserve(c.r, c.want, c.held); got.Pass != c.pass {
			t.Errorf("%+v, %d beside %d: %t, want %t", c.r, c.want, c.held, got.Pass, c.pass)
		}
	}
}

// A refusal says when it is worth to come again, where that is known.
func TestClosedSaysWhenItOpens(t *testing.T) {
	p, g, s, u := ample()
	p.Schedule = &Closed{Why: "it lends from 22:00 CET", Opens: time.Date(2026, 11, 25, 21, 0, 0, 0, time.UTC)}
	if got, want := Decide(p, g, s, u).Reason, "this machine takes no new work until 2026-11-25 21:00 UTC (it lends from 22:00 CET)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	p.Schedule = &Closed{Why: "it lends while it is idle"}
	if got, want := Decide(p, g, s, u).Reason, "this machine takes no new work now (it lends while it is idle)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
