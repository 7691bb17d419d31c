// Package lend owns what the owner of this machine lends to all peers together, and
// when: the settings, the schedule, and whether the machine is idle. It decides
// nothing about a single request; admission does, with what this package says. The
// clock is given to it, and so is what it is to know about the machine.
package lend

import (
	"fmt"
	"math"
	"time"

	"peercompute/pkg/mesh"
)

// Then says what becomes of work that runs when lending closes.
type Then string

// The choices, each stricter than the one before.
const (
	Keep  Then = "keep"  // it goes on; only new work is refused
	Pause Then = "pause" // containers are frozen; services without state are ended; jobs go on
	Stop  Then = "stop"  // it is ended, and started again when lending opens
)

// ParseThen reads a choice; empty is Keep.
func ParseThen(s string) (Then, error) {
	switch t := Then(s); t {
	case "":
		return Keep, nil
	case Keep, Pause, Stop:
		return t, nil
	}
	return "", mesh.Errorf(mesh.Invalid, "%q is not what can become of running work", s).WithHint("choose keep, pause or stop")
}

// Max is the stricter of two.
func (t Then) Max(o Then) Then {
	rank := map[Then]int{Pause: 1, Stop: 2}
	if rank[o] > rank[t] {
		return o
	}
	return t
}

// Settings is what the owner has said. What is nil was left open.
type Settings struct {
	Workloads *int    `json:"workloads,omitempty"`
	MilliCPU  *int64  `json:"milli_cpu,omitempty"` // thousandths of a core
	Memory    *int64  `json:"memory,omitempty"`    // bytes
	Disk      *int64  `json:"disk,omitempty"`      // bytes of writable scratch
	Reserve   *int64  `json:"reserve,omitempty"`   // bytes of memory that stay for this machine
	When      *string `json:"when,omitempty"`
	Then      *string `json:"then,omitempty"`

	// Prices in a currency of the owner's own.
	PriceGFuel           *float64 `json:"price_gfuel,omitempty"` // of 1,000,000,000 units of fuel
	PriceContainerSecond *float64 `json:"price_container_second,omitempty"`
}

// Over is s, and base where s says nothing.
func (s Settings) Over(base Settings) Settings {
	return Settings{
		or(s.Workloads, base.Workloads), or(s.MilliCPU, base.MilliCPU), or(s.Memory, base.Memory), or(s.Disk, base.Disk),
		or(s.Reserve, base.Reserve), or(s.When, base.When), or(s.Then, base.Then),
		or(s.PriceGFuel, base.PriceGFuel), or(s.PriceContainerSecond, base.PriceContainerSecond),
	}
}

func or[T any](a, b *T) *T {
	if a != nil {
		return a
	}
	return b
}

// Said names the settings that are not left open, as flags are named.
func (s Settings) Said() []string {
	out := []string{}
	for _, f := range []struct {
		name string
		said bool
	}{
		{"workloads", s.Workloads != nil},
		{"cpus", s.MilliCPU != nil},
		{"memory", s.Memory != nil},
		{"disk", s.Disk != nil},
		{"reserve-memory", s.Reserve != nil},
		{"when", s.When != nil},
		{"then", s.Then != nil},
		{"price-per-gfuel", s.PriceGFuel != nil},
		{"price-per-container-second", s.PriceContainerSecond != nil},
	} {
		if f.said {
			out = append(out, f.name)
		}
	}
	return out
}

// Policy is settings with nothing left open. The zero value lends nothing.
type Policy struct {
	Workloads int
	MilliCPU  int64
	Memory    int64
	Disk      int64
	Reserve   int64
	When      Schedule
	Then      Then

	PriceGFuel           float64
	PriceContainerSecond float64
}

// Policy reads the settings; what is left open is lent not at all, or always and
// kept where that is the question.
func (s Settings) Policy() (p Policy, err error) {
	val := func(v *int64) int64 {
		if v == nil {
			return 0
		}
		return *v
	}
	if s.Workloads != nil {
		p.Workloads = *s.Workloads
	}
	p.MilliCPU, p.Memory, p.Disk, p.Reserve = val(s.MilliCPU), val(s.Memory), val(s.Disk), val(s.Reserve)
	if p.Workloads < 0 || p.MilliCPU < 0 || p.Memory < 0 || p.Disk < 0 || p.Reserve < 0 {
		return p, mesh.Errorf(mesh.Invalid, "what is lent cannot be negative")
	}
	when, then := Always, string(Keep)
	if s.When != nil {
		when = *s.When
	}
	if s.Then != nil {
		then = *s.Then
	}
	if p.When, err = ParseSchedule(when); err != nil {
		return p, err
	}
	if p.PriceGFuel, err = price(s.PriceGFuel); err != nil {
		return p, err
	}
	if p.PriceContainerSecond, err = price(s.PriceContainerSecond); err != nil {
		return p, err
	}
	p.Then, err = ParseThen(then)
	return p, err
}

// price reads a price; what is left open costs nothing.
func price(p *float64) (float64, error) {
	if p == nil {
		return 0, nil
	}
	if math.IsNaN(*p) || *p < 0 || *p > maxPrice {
		return 0, mesh.Errorf(mesh.Invalid, "a price is a number from 0 to %g, not %g", float64(maxPrice), *p)
	}
	return *p, nil
}

// maxPrice keeps amounts to what can be reckoned with.
const maxPrice = 1e12

// Break is the owner's word that nothing new is lent for a while, whatever the
// schedule says.
type Break struct {
	Until time.Time `json:"until"` // zero = until it is resumed
	Then  Then      `json:"then,omitempty"`
}

// InForce reports whether the break still holds.
func (b *Break) InForce(now time.Time) bool {
	return b != nil && (b.Until.IsZero() || now.Before(b.Until))
}

// State is whether lending is open now.
type State struct {
	Open   bool
	Reason string    // while closed: goes behind "paused: ", as in "lends from 22:00 CET"
	Opens  time.Time // while closed: when it opens; zero = nobody can say
	Closes time.Time // while open: when the schedule closes it; zero = never, or when the machine is used
	Then   Then      // while closed: what becomes of running work
}

// At is the state at now, which carries the owner's time zone. idle says whether
// the machine is left alone; it counts only where the schedule asks for it.
func (p Policy) At(now time.Time, b *Break, idle bool) State {
	s := p.When.at(now, idle)
	s.Then = p.Then
	if s.Open {
		s.Then = ""
	}
	if !b.InForce(now) {
		return s
	}
	reason, opens, then := "by its owner, until that is resumed", time.Time{}, b.Then
	if !b.Until.IsZero() {
		opens = b.Until
		if after := p.When.at(b.Until.In(now.Location()), idle); !after.Open {
			opens = after.Opens // the schedule is closed by then
		}
		reason = "by its owner, until " + clock(b.Until.In(now.Location()), now)
	}
	if then == "" {
		then = Keep
	}
	return State{Reason: reason, Opens: opens, Then: then.Max(s.Then)}
}

// clock writes a moment for people: the time of day, and the day where it is not
// within the next 20 hours.
func clock(at, now time.Time) string {
	switch d := at.Sub(now); {
	case d < 20*time.Hour:
		return at.Format("15:04 MST")
	case d < 6*24*time.Hour:
		return at.Format("Mon 15:04 MST")
	}
	return at.Format("2006-01-02 15:04 MST")
}

// String is a line for logs.
func (s State) String() string {
	if s.Open {
		return "open"
	}
	return fmt.Sprintf("closed (%s), running work: %s", s.Reason, s.Then)
}
