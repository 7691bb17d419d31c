// Package admission judges requests: whether one is fresh and was never seen
// before (Gate), and whether a grant and this machine's policy allow what it asks
// (Decide, a pure function). Its clock is injected; it never touches the network.
package admission

import (
	"fmt"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/trust"
)

// Policy is what the owner of this machine lends at most, to all peers together.
// The zero value lends nothing.
type Policy struct {
	Workloads int
	Resources mesh.Resources // sums; PIDs and Fuel are per workload
	Runtimes  []mesh.Runtime // that can run here now
	Paused    *Pause         // nil = open
}

// Pause says that the owner lends nothing new for a while.
type Pause struct {
	Until time.Time `json:"until"` // zero = until it is resumed
}

// InForce reports whether the pause still holds.
func (p *Pause) InForce(now time.Time) bool {
	return p != nil && (p.Until.IsZero() || now.Before(p.Until))
}

// Usage is what runs already.
type Usage struct {
	Peer, Host Held
}

// Held is a sum over workloads.
type Held struct {
	Workloads int
	Resources mesh.Resources
}

// Add counts one more workload.
func (h *Held) Add(s mesh.Spec) {
	h.Workloads++
	h.Resources.MilliCPU += s.Resources.CountedCPU()
	h.Resources.Memory += s.Resources.Memory
	h.Resources.Disk += s.Resources.Disk
}

// Decision is the outcome. The zero value denies.
type Decision struct {
	Allow  bool
	Rule   string // the rule that decided, for example "grant.memory"
	Reason string // one line; for a denial, the shortfall
	Ask    string // the flag of `peerctl peers allow` that would lift the limit; empty = no flag does
}

// Decide judges a spec (with its defaults filled in) under a grant. It is pure.
func Decide(p Policy, g trust.Grant, s mesh.Spec, u Usage) Decision {
	if !g.Allow.Has(trust.Deploy) {
		return Decision{Rule: "grant.deploy", Reason: "you may not deploy here", Ask: "--allow deploy"}
	}
	if p.Paused != nil {
		opens := "until its owner resumes it"
		if !p.Paused.Until.IsZero() {
			opens = "until " + p.Paused.Until.UTC().Format("2006-01-02 15:04 MST")
		}
		return Decision{Rule: "host.paused", Reason: "this machine takes no new work " + opens}
	}
	return limits(p, g, s, u)
}

// DecideRoute judges whether a peer may hold one more public name on a gateway.
func DecideRoute(g trust.Grant, held int) Decision {
	if !g.Allow.Has(trust.Publish) {
		return Decision{Rule: "grant.publish", Reason: "you may not publish names here", Ask: "--allow publish"}
	}
	if held+1 > g.Quota.Names {
		return Decision{
			Rule: "grant.names", Reason: fmt.Sprintf("%d public names exceed your grant of %d there", held+1, g.Quota.Names),
			Ask: fmt.Sprintf("--max-names %d", held+1),
		}
	}
	return Decision{Allow: true, Rule: "grant.names", Reason: "within the grant"}
}

func limits(p Policy, g trust.Grant, s mesh.Spec, u Usage) Decision {
	can := false
	for _, r := range p.Runtimes {
		can = can || r == s.Runtime
	}
	if !can {
		return Decision{Rule: "host.runtime", Reason: fmt.Sprintf("this machine cannot run a %s now", s.Runtime)}
	}
	if d := s.Timeout; d > mesh.MaxTimeout {
		return Decision{Rule: "host.timeout", Reason: fmt.Sprintf("timeout %s exceeds %s", d, mesh.MaxTimeout)}
	}
	r, q := s.Resources, g.Quota.Resources
	rows := []struct {
		rule, what, ask string
		want, held, max int64
		show            func(int64) string
	}{
		{"grant.workloads", "workloads", "--max-workloads", 1, int64(u.Peer.Workloads), int64(g.Quota.Workloads), count},
		{"grant.cpus", "cpus", "--cpus", r.CountedCPU(), u.Peer.Resources.MilliCPU, q.MilliCPU, cores},
		{"grant.memory", "memory", "--memory", r.Memory, u.Peer.Resources.Memory, q.Memory, size},
		{"grant.disk", "disk", "--disk", r.Disk, u.Peer.Resources.Disk, q.Disk, size},
		{"grant.pids", "pids", "", r.PIDs, 0, q.PIDs, count},
		{"host.workloads", "workloads", "", 1, int64(u.Host.Workloads), int64(p.Workloads), count},
		{"host.cpus", "cpus", "", r.CountedCPU(), u.Host.Resources.MilliCPU, p.Resources.MilliCPU, cores},
		{"host.memory", "memory", "", r.Memory, u.Host.Resources.Memory, p.Resources.Memory, size},
		{"host.disk", "disk", "", r.Disk, u.Host.Resources.Disk, p.Resources.Disk, size},
	}
	for _, x := range rows {
		if x.want < 0 || x.held < 0 || x.want > x.max-x.held {
			whose := "your grant of %s there"
			if x.rule[:4] == "host" {
				whose = "the %s that this machine lends in all"
			}
			reason := fmt.Sprintf("%s %s exceeds "+whose, x.what, x.show(x.want), x.show(x.max))
			if x.held > 0 {
				reason += fmt.Sprintf(" (%s in use)", x.show(x.held))
			}
			d := Decision{Rule: x.rule, Reason: reason}
			if x.ask != "" {
				d.Ask = x.ask + " " + flag(x.show(x.held+x.want))
			}
			return d
		}
	}
	if r.Fuel > q.Fuel {
		return Decision{Rule: "grant.fuel", Reason: fmt.Sprintf("fuel %d exceeds your grant of %d a run there", r.Fuel, q.Fuel)}
	}
	return Decision{Allow: true, Rule: "grant", Reason: "within the grant and what this machine lends"}
}

// Refusal turns a denial into the error that the asker sees; host and asker are
// the names to use in the next step. It is nil if d allows.
func (d Decision) Refusal(asker mesh.PeerID) error {
	if d.Allow {
		return nil
	}
	kind := mesh.Quota
	if d.Rule == "grant.deploy" || d.Rule == "grant.publish" || d.Rule == "host.runtime" || d.Rule == "host.paused" || d.Rule == "" {
		kind = mesh.Denied
	}
	e := mesh.Errorf(kind, "%s", d.Reason).WithRule(d.Rule)
	if d.Rule == "" {
		e = mesh.Errorf(kind, "denied by default").WithRule("default")
	}
	if d.Ask != "" {
		e = e.WithHint("ask its owner for: peerctl peers allow %s %s", asker, d.Ask)
	}
	return e
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

// flag makes a shown amount fit for a command line: "2 GiB" → "2GiB".
func flag(s string) string {
	out := make([]byte, 0, len(s))
	for i := range len(s) {
		if s[i] != ' ' {
			out = append(out, s[i])
		}
	}
	return string(out)
}

// window reports whether a request's times are acceptable at now.
func window(now, issued, expires time.Time, drift, lifetime time.Duration) error {
	stale := func(format string, args ...any) error {
		return mesh.Errorf(mesh.Stale, format, args...).WithRule("time.window")
	}
	switch {
	case !expires.After(issued) || expires.Sub(issued) > lifetime:
		return stale("the request is valid for %s; the most is %s", expires.Sub(issued), lifetime)
	case issued.After(now.Add(drift)):
		return stale("the request is from %s in the future; clocks may differ by %s", issued.Sub(now).Round(time.Second), drift)
	case now.Sub(issued) > drift:
		return stale("the request is %s old; the most is %s", now.Sub(issued).Round(time.Second), drift)
	case now.After(expires):
		return stale("the request expired %s ago", now.Sub(expires).Round(time.Second))
	}
	return nil
}
