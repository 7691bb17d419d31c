package admission

import (
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"

	"peercompute/pkg/mesh"
	"peercompute/pkg/trust"
)

// anything draws a question in which each rule may pass or not, with amounts
// around their limits and at the ends of their type.
func anything(t *rapid.T) (Policy, trust.Grant, mesh.Spec, Usage) {
	amount := rapid.OneOf(rapid.Int64Range(0, 4), rapid.SampledFrom([]int64{-1, 0, 1<<62 - 1, 1<<63 - 1, -1 << 63}))
	if generous := rapid.Bool().Draw(t, "generous"); generous { // else next to nothing would be allowed
		p, g, s, u := ample()
		p.Resources.Memory, g.Quota.Resources.Disk = 1<<63-1, 1<<63-1
		room := rapid.Int64Range(0, 4<<30)
		s.Resources.Memory, u.Peer.Resources.Memory = room.Draw(t, "memory"), amount.Draw(t, "held memory")
		s.Resources.Disk, u.Host.Resources.Disk = room.Draw(t, "disk"), room.Draw(t, "held disk")
		u.Peer.Workloads, u.Host.Workloads = rapid.IntRange(0, 10).Draw(t, "peer holds"), rapid.IntRange(0, 10).Draw(t, "host holds")
		return p, g, s, u
	}
	positive := rapid.OneOf(rapid.Int64Range(0, 9), rapid.Just[int64](1<<63-1))
	resources := func(what string, of *rapid.Generator[int64]) mesh.Resources {
		return mesh.Resources{
			MilliCPU: of.Draw(t, what+" cpu"), Memory: of.Draw(t, what+" memory"), Disk: of.Draw(t, what+" disk"),
			PIDs: of.Draw(t, what+" pids"), Fuel: uint64(positive.Draw(t, what+" fuel")),
		}
	}
	p := Policy{
		Workloads: rapid.IntRange(0, 9).Draw(t, "host workloads"), Resources: resources("host", positive),
		Runtimes: rapid.SliceOf(rapid.SampledFrom([]mesh.Runtime{mesh.Container, mesh.Wasm})).Draw(t, "runtimes"),
	}
	if rapid.Bool().Draw(t, "paused") {
		p.Paused = &Closed{Opens: time.Unix(rapid.Int64Range(0, 1<<32).Draw(t, "until"), 0)}
	}
	if rapid.Bool().Draw(t, "reserves") {
		p.Reserve = Reserve{amount.Draw(t, "keeps"), positive.Draw(t, "has"), positive.Draw(t, "available")}
	}
	g := trust.Grant{
		Allow: trust.Allow(rapid.Uint8Range(0, 31).Draw(t, "allow")),
		Quota: trust.Quota{
			Workloads: rapid.IntRange(0, 9).Draw(t, "workloads"), Resources: resources("grant", positive),
			FuelDay: uint64(positive.Draw(t, "fuel a day")), Images: rapid.SliceOf(rapid.SampledFrom([]string{"any", "wasm", "x"})).Draw(t, "images"),
			Egress: rapid.SliceOf(rapid.SampledFrom(trust.EgressKinds())).Draw(t, "egress"),
		},
	}
	s := mesh.Spec{
		Runtime: rapid.SampledFrom([]mesh.Runtime{mesh.Container, mesh.Wasm, ""}).Draw(t, "runtime"), Resources: resources("spec", amount),
		Egress:  rapid.SampledFrom([]mesh.Egress{"", "none", "internet", "allow:192.0.2.1"}).Draw(t, "wants egress"),
		Timeout: time.Duration(rapid.Int64Range(-1, 2*int64(mesh.MaxTimeout)).Draw(t, "timeout")),
	}
	u := Usage{
		Peer: Held{Workloads: rapid.IntRange(0, 9).Draw(t, "peer holds"), Resources: resources("peer", amount)},
		Host: Held{Workloads: rapid.IntRange(0, 9).Draw(t, "host holds"), Resources: resources("all", amount)},

		FuelToday: uint64(amount.Draw(t, "fuel today")),
	}
	return p, g, s, u
}

// What is explained is what is decided: allowed if and only if every rule passes,
// and refused by the first that does not.
func TestExplainAgreesWithDecide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, g, s, u := anything(t)
		d, rows := Decide(p, g, s, u), Explain(p, g, s, u)
		var first *Row
		seen := map[string]bool{}
		for i, r := range rows {
			if !r.Pass && first == nil {
				first = &rows[i]
			}
			if seen[r.Rule] || r.Rule == "" {
				t.Errorf("the rule %q is there twice or has no name", r.Rule)
			}
			seen[r.Rule] = true
			if r.Pass != (r.Reason == "") || r.Pass && r.Ask != "" || r.Kind == mesh.Internal {
				t.Errorf("the row %+v says too much or too little", r)
			}
		}
		switch {
		case d.Allow != (first == nil):
			t.Fatalf("decided %+v, but the first rule that does not pass is %+v", d, first)
		case first != nil && (d.Rule != first.Rule || d.Reason != first.Reason || d.Ask != first.Ask || d.Kind != first.Kind):
			t.Fatalf("decided %+v, want it by the row %+v", d, *first)
		case d.Allow != (d.Refusal("p") == nil):
			t.Fatalf("decided %+v, refused as %v", d, d.Refusal("p"))
		}
	})
}

// Whatever the table says, nothing is allowed whose true sums (in numbers without
// bounds) exceed a limit.
func TestNothingOverALimitIsAllowed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, g, s, u := anything(t)
		if !Decide(p, g, s, u).Allow {
			return
		}
		fits := func(what string, want, held, most int64) {
			sum := new(big.Int).Add(big.NewInt(want), big.NewInt(held))
			if want < 0 || held < 0 || sum.Cmp(big.NewInt(most)) > 0 {
				t.Errorf("%s: %d beside %d is allowed under %d", what, want, held, most)
			}
		}
		r, q, h := s.Resources, g.Quota.Resources, p.Resources
		fits("workloads", 1, int64(u.Peer.Workloads), int64(g.Quota.Workloads))
		fits("all workloads", 1, int64(u.Host.Workloads), int64(p.Workloads))
		fits("cpu", r.CountedCPU(), u.Peer.Resources.MilliCPU, q.MilliCPU)
		fits("all cpu", r.CountedCPU(), u.Host.Resources.MilliCPU, h.MilliCPU)
		memory := r.Memory
		if s.Runtime == mesh.Wasm {
			fits("scratch in memory", r.Memory, r.Disk, q.Memory)
			memory = r.Memory + r.Disk
		}
		fits("memory", memory, u.Peer.Resources.Memory, q.Memory)
		fits("all memory", memory, u.Host.Resources.Memory, h.Memory)
		fits("disk", r.Disk, u.Peer.Resources.Disk, q.Disk)
		fits("all disk", r.Disk, u.Host.Resources.Disk, h.Disk)
		fits("pids", r.PIDs, 0, q.PIDs)
		burnt := new(big.Int).Add(new(big.Int).SetUint64(r.Fuel), new(big.Int).SetUint64(u.FuelToday))
		if s.Runtime == mesh.Wasm && r.Fuel > 0 && burnt.Cmp(new(big.Int).SetUint64(g.Quota.FuelDay)) > 0 {
			t.Errorf("fuel %d beside %d is allowed under %d a day", r.Fuel, u.FuelToday, g.Quota.FuelDay)
		}
		if r.Fuel > q.Fuel || !g.Allow.Has(trust.Deploy) || p.Paused != nil {
			t.Errorf("allowed with fuel %d of %d, permissions %v, paused %v", r.Fuel, q.Fuel, g.Allow.Names(), p.Paused)
		}
	})
}

// A decision out of no rules at all denies.
func TestNoRulesDeny(t *testing.T) {
	if d := verdict(nil, "grant", "within"); d.Allow || d.Refusal("p") == nil {
		t.Fatalf("decided %+v", d)
	}
}
