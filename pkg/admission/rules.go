package admission

import (
	"fmt"
	"math"
	"strings"

	"peercompute/pkg/mesh"
	"peercompute/pkg/trust"
)

// This file is the table of rules. Decide and Explain both read it, so what is
// explained is what is decided. A new rule is one more row, wherever it shall be
// asked: the first row that does not pass is the refusal.

// Row is one rule as it was applied. The zero value does not pass.
type Row struct {
	mesh.Check
	Kind mesh.Kind // of the refusal, where it does not pass
}

// Explain is every rule that Decide asks, in its order, with what it compared.
func Explain(p Policy, g trust.Grant, s mesh.Spec, u Usage) []Row {
	r, q := s.Resources, g.Quota.Resources
	return tidy([]Row{
		permission("grant.deploy", "deploy here", "deploy", g, trust.Deploy),
		open("host.paused", p.Paused),
		open("host.schedule", p.Schedule),
		runs(p, s),
		timeout(s),
		images(g, s),
		signature(g, s),
		egress(g, s),
		wallClock(g, s),
		amount("grant.workloads", "workloads", "--max-workloads", 1, int64(u.Peer.Workloads), int64(g.Quota.Workloads), count),
		amount("grant.cpus", "cpus", "--cpus", r.CountedCPU(), u.Peer.Resources.MilliCPU, q.MilliCPU, cores),
		amount("grant.memory", "memory", "--memory", s.CountedMemory(), u.Peer.Resources.Memory, q.Memory, size),
		amount("grant.disk", "disk", "--disk", add64(r.Disk, u.NewVolumes), u.Peer.Resources.Disk, q.Disk, size),
		amount("grant.pids", "pids", "", r.PIDs, 0, q.PIDs, count),
		amount("host.workloads", "workloads", "", 1, int64(u.Host.Workloads), int64(p.Workloads), count),
		amount("host.cpus", "cpus", "", r.CountedCPU(), u.Host.Resources.MilliCPU, p.Resources.MilliCPU, cores),
		amount("host.memory", "memory", "", s.CountedMemory(), u.Host.Resources.Memory, p.Resources.Memory, size),
		reserve(p.Reserve, s.CountedMemory(), u.Host.Resources.Memory),
		amount("host.disk", "disk", "", add64(r.Disk, u.NewVolumes), u.Host.Resources.Disk, p.Resources.Disk, size),
		fuel(r.Fuel, q.Fuel),
		fuelDay(g, s, u),
	})
}

// add64 is a sum of amounts, none of which may be negative; a sum that overflows or has
// one that is fits nowhere.
func add64(a, b int64) int64 {
	if a < 0 || b < 0 || a > math.MaxInt64-b {
		return -1
	}
	return a + b
}

// ExplainRoute is every rule that DecideRoute asks.
func ExplainRoute(g trust.Grant, held int) []Row {
	return tidy([]Row{
		permission("grant.publish", "publish names here", "publish", g, trust.Publish),
		names(g, held),
	})
}

// tidy leaves a reason and a next step only where a rule does not pass.
func tidy(rows []Row) []Row {
	for i := range rows {
		if rows[i].Pass {
			rows[i].Reason, rows[i].Ask = "", ""
		}
	}
	return rows
}

// permission asks for one of the permissions of a grant.
func permission(rule, what, name string, g trust.Grant, want trust.Allow) Row {
	return Row{Kind: mesh.Denied, Check: mesh.Check{
		Rule: rule, Want: name, Limit: strings.Join(g.Allow.Names(), ", "), Pass: g.Allow.Has(want),
		Reason: "you may not " + what, Ask: "--allow " + name,
	}}
}

// open asks whether anything new is lent now.
func open(rule string, c *Closed) Row {
	row := Row{Kind: mesh.Denied, Check: mesh.Check{Rule: rule, Want: "new work", Limit: "open", Pass: c == nil}}
	if c != nil {
		until := "now"
		if !c.Opens.IsZero() {
			until = "until " + c.Opens.UTC().Format(moment)
		}
		row.Limit = "closed " + until
		row.Reason = fmt.Sprintf("this machine takes no new work %s (%s)", until, c.Why)
	}
	return row
}

// reserve asks whether the memory that stays for this machine stays: beside all
// that workloads may take at most, and beside all that is in use now.
func reserve(r Reserve, want, held int64) Row {
	row := Row{Kind: mesh.Quota, Check: mesh.Check{
		Rule: "host.reserve", Want: size(want), Held: size(held), Limit: size(r.Total - r.Keep),
		Pass: r.Keep == 0 || r.Keep > 0 && want >= 0 && held >= 0 && want <= r.Total-r.Keep-held && want <= r.Available-r.Keep,
	}}
	row.Reason = fmt.Sprintf("memory %s would not leave this machine the %s that its owner keeps (%s available now, %s lent)",
		size(want), size(r.Keep), size(r.Available), size(held))
	return row
}

func runs(p Policy, s mesh.Spec) Row {
	row := Row{Kind: mesh.Denied, Check: mesh.Check{
		Rule: "host.runtime", Want: string(s.Runtime), Reason: fmt.Sprintf("this machine cannot run a %s now", s.Runtime),
	}}
	var can []string
	for _, r := range p.Runtimes {
		can = append(can, string(r))
		row.Pass = row.Pass || r == s.Runtime
	}
	row.Limit = strings.Join(can, ", ")
	return row
}

func timeout(s mesh.Spec) Row {
	return Row{Kind: mesh.Quota, Check: mesh.Check{
		Rule: "host.timeout", Want: s.Timeout.String(), Limit: mesh.MaxTimeout.String(), Pass: s.Timeout <= mesh.MaxTimeout,
		Reason: fmt.Sprintf("timeout %s exceeds %s", s.Timeout, mesh.MaxTimeout),
	}}
}

// amount asks whether want more fits under most beside what is held. Sums that
// overflow do not.
func amount(rule, what, flag string, want, held, most int64, show func(int64) string) Row {
	row := Row{Kind: mesh.Quota, Check: mesh.Check{
		Rule: rule, Want: show(want), Held: show(held), Limit: show(most),
		Pass: want >= 0 && held >= 0 && want <= most-held,
	}}
	whose := "your grant of %s there"
	if strings.HasPrefix(rule, "host.") {
		whose = "the %s that this machine lends in all"
	}
	row.Reason = fmt.Sprintf("%s %s exceeds "+whose, what, show(want), show(most))
	if held > 0 {
		row.Reason += fmt.Sprintf(" (%s in use)", show(held))
	}
	if sum := held + want; flag != "" && held >= 0 && sum >= held {
		row.Ask = flag + " " + strings.ReplaceAll(show(sum), " ", "") // "2 GiB" → "2GiB"
	}
	return row
}

func fuel(want, most uint64) Row {
	return Row{Kind: mesh.Quota, Check: mesh.Check{
		Rule: "grant.fuel", Want: fmt.Sprint(want), Limit: fmt.Sprint(most), Pass: want <= most,
		Reason: fmt.Sprintf("fuel %d exceeds your grant of %d a run there", want, most),
	}}
}

// fuelDay asks whether the fuel of one run or request is left for today. Containers
// burn none.
func fuelDay(g trust.Grant, s mesh.Spec, u Usage) Row {
	want, most := s.Resources.Fuel, g.Quota.FuelDay
	if s.Shape == mesh.Server {
		want = s.FuelDay
	}
	if s.Runtime != mesh.Wasm {
		want = 0
	}
	row := Row{Kind: mesh.Quota, Check: mesh.Check{
		Rule: "grant.fuel-per-day", Want: Fuel(want), Held: Fuel(u.FuelToday), Limit: Fuel(most),
		Pass: want == 0 || u.FuelToday <= most && want <= most-u.FuelToday,
	}}
	row.Reason = fmt.Sprintf("fuel %s exceeds what is left of your grant of %s a day there (%s used or reserved today)", Fuel(want), Fuel(most), Fuel(u.FuelToday))
	if want <= most {
		row.Reason += "; it opens again " + u.FuelOpens.UTC().Format(moment)
	}
	if sum := u.FuelToday + want; sum >= want {
		row.Ask = "--fuel-per-day " + strings.ReplaceAll(Fuel(sum), " ", "")
	}
	return row
}

// moment is how a time is written in a reason.
const moment = "2006-01-02 15:04 MST"

// Fuel writes units of fuel for people, rounded up so that what it says is enough.
func Fuel(n uint64) string {
	for _, u := range []struct {
		name string
		unit uint64
	}{{"P", 1e15}, {"T", 1e12}, {"G", 1e9}, {"M", 1e6}, {"k", 1e3}} {
		if n >= u.unit {
			tenths := n / (u.unit / 10)
			if n%(u.unit/10) != 0 {
				tenths++
			}
			return strings.TrimSuffix(fmt.Sprintf("%d.%d", tenths/10, tenths%10), ".0") + " " + u.name
		}
	}
	return fmt.Sprint(n)
}

func names(g trust.Grant, held int) Row {
	return Row{Kind: mesh.Quota, Check: mesh.Check{
		Rule: "grant.names", Want: "1", Held: fmt.Sprint(held), Limit: fmt.Sprint(g.Quota.Names), Pass: held < g.Quota.Names,
		Reason: fmt.Sprintf("%d public names exceed your grant of %d there", held+1, g.Quota.Names),
		Ask:    fmt.Sprintf("--max-names %d", held+1),
	}}
}

func count(n int64) string { return fmt.Sprint(n) }

func cores(m int64) string { return fmt.Sprintf("%g", float64(m)/1000) }

func size(n int64) string {
	for _, u := range []struct {
		name string
		unit int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.unit {
			return fmt.Sprintf("%.4g %s", float64(n)/float64(u.unit), u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}
