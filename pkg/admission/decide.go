// Package admission judges requests: whether one is fresh and was never seen
// before (Gate), and whether a grant and this machine's policy allow what it asks
// (Decide, a pure function). Its clock is injected; it never touches the network.
package admission

import (
	"strings"
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
	Paused    *Closed        // by the owner's word; nil = not
	Schedule  *Closed        // by the hours in which this machine lends; nil = open
	Reserve   Reserve
}

// Closed says that nothing new is lent now.
type Closed struct {
	Why   string    // one line: "its owner paused it", "it lends from 22:00 CET"
	Opens time.Time // zero = nobody can say
}

// Reserve is the memory that stays for this machine, in bytes. The zero value
// reserves nothing.
type Reserve struct {
	Keep      int64
	Total     int64 // that the machine has
	Available int64 // that could be taken now without swapping
}

// Usage is what runs already.
type Usage struct {
	Peer, Host Held
	FuelToday  uint64    // units of fuel/1 that the peer has burnt today or holds for what runs
	FuelOpens  time.Time // when the next day begins
	NewVolumes int64     // bytes of the volumes that would be made; those that there are count as disk
}

// Held is a sum over workloads.
type Held struct {
	Workloads int
	Resources mesh.Resources
	JobFuel   uint64 // units of fuel/1 that the jobs among them may burn at most
}

// Add counts one more workload.
func (h *Held) Add(s mesh.Spec) {
	h.Workloads++
	h.Resources.MilliCPU += s.Resources.CountedCPU()
	h.Resources.Memory += s.CountedMemory()
	h.Resources.Disk += s.Resources.Disk
	if s.Shape == mesh.Job {
		h.JobFuel = add(h.JobFuel, s.Resources.Fuel)
	}
}

// Join adds another sum.
func (h *Held) Join(o Held) {
	h.Workloads += o.Workloads
	h.Resources.MilliCPU += o.Resources.MilliCPU
	h.Resources.Memory += o.Resources.Memory
	h.Resources.Disk += o.Resources.Disk
	h.JobFuel = add(h.JobFuel, o.JobFuel)
}

// Less takes a sum away that is part of h.
func (h Held) Less(o Held) Held {
	h.Workloads -= o.Workloads
	h.Resources.MilliCPU -= o.Resources.MilliCPU
	h.Resources.Memory -= o.Resources.Memory
	h.Resources.Disk -= o.Resources.Disk
	h.JobFuel -= min(o.JobFuel, h.JobFuel)
	return h
}

// Max is the larger of two sums, quantity by quantity.
func (h Held) Max(o Held) Held {
	h.Workloads = max(h.Workloads, o.Workloads)
	h.Resources.MilliCPU = max(h.Resources.MilliCPU, o.Resources.MilliCPU)
	h.Resources.Memory = max(h.Resources.Memory, o.Resources.Memory)
	h.Resources.Disk = max(h.Resources.Disk, o.Resources.Disk)
	h.JobFuel = max(h.JobFuel, o.JobFuel)
	return h
}

// Decision is the outcome. The zero value denies.
type Decision struct {
	Allow  bool
	Rule   string    // the rule that decided, for example "grant.memory"
	Reason string    // one line; for a denial, the shortfall
	Ask    string    // the flag of `peerctl peers allow` that would lift the limit; empty = no flag does
	Kind   mesh.Kind // of the refusal
}

// Decide judges a spec (with its defaults filled in) under a grant. It is pure,
// and its rules are those of Explain: it allows if all of them pass, and the first
// that does not is the one that decides.
func Decide(p Policy, g trust.Grant, s mesh.Spec, u Usage) Decision {
	return verdict(Explain(p, g, s, u), "grant", "within the grant and what this machine lends")
}

// DecideRoute judges whether a peer may hold one more public name on a gateway.
func DecideRoute(g trust.Grant, held int) Decision {
	return verdict(ExplainRoute(g, held), "grant.names", "within the grant")
}

func verdict(rows []Row, rule, reason string) Decision {
	for _, r := range rows {
		if !r.Pass {
			return Decision{Rule: r.Rule, Reason: r.Reason, Ask: r.Ask, Kind: r.Kind}
		}
	}
	// No rule at all is no reason to allow anything.
	return Decision{Allow: len(rows) > 0, Rule: rule, Reason: reason}
}

// Refusal turns a denial into the error that the asker sees; host and asker are
// the names to use in the next step. It is nil if d allows.
func (d Decision) Refusal(asker mesh.PeerID) error {
	if d.Allow {
		return nil
	}
	if d.Rule == "" {
		return mesh.Errorf(mesh.Denied, "denied by default").WithRule("default")
	}
	e := mesh.Errorf(d.Kind, "%s", d.Reason).WithRule(d.Rule)
	switch {
	case d.Ask != "":
		e = e.WithHint("ask its owner for: peerctl peers allow %s %s", asker, d.Ask)
	case strings.HasPrefix(d.Rule, "host."):
		e = e.WithHint("choose another --peer, or try again once less runs there; peerctl explain shows every rule")
	default:
		e = e.WithHint("ask for less, or choose another --peer; peerctl explain shows every rule")
	}
	return e
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
