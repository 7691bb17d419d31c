package main

import (
	"fmt"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

// describeState is a peer's state in a few words. A wrong clock is said, because it
// is what its owner can put right.
func describeState(l control.Liveness) string {
	s := l.State
	if l.ClockOff != 0 {
		off := l.ClockOff
		way := "ahead"
		if off < 0 {
			off, way = -off, "behind"
		}
		s = fmt.Sprintf("clock off by %s (%s)", roughly(off), way)
		if l.State != "alive" {
			s = l.State + ", " + s
		}
	}
	return s
}

// describePath is how a peer is connected, and how far away it is.
func describePath(l control.Liveness) string {
	if !l.Connected {
		return ""
	}
	s := either(l.Relayed, "relayed", "direct")
	if l.RTT > 0 {
		s += " " + millis(l.RTT)
	}
	return s
}

func millis(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	if ms < 10 {
		return fmt.Sprintf("%.1fms", ms)
	}
	return fmt.Sprintf("%.0fms", ms)
}

// describeFree is what a peer could still lend, if it lets this machine know.
func describeFree(f *control.Free) string {
	if f == nil {
		return ""
	}
	if f.Closed {
		return "takes no new work now"
	}
	s := plural(f.Workloads, "workload")
	if r := describeResources(mesh.Resources{MilliCPU: f.MilliCPU, Memory: f.Memory}); r != "" {
		s += ", " + r
	}
	return s
}

// seen is how long ago a peer gave a sign of life.
func (a *app) seen(l control.Liveness) string {
	if l.Seen.IsZero() {
		return ""
	}
	return a.age(l.Seen) + " ago"
}

// maxStates bounds the peers that status lists one by one.
const maxStates = 20

func (a *app) stateRows(t *table, states []control.PeerState) {
	for i, p := range states {
		if i == maxStates {
			t.row("", fmt.Sprintf("and %d more: peerctl peers ls", len(states)-i))
			return
		}
		line := describeState(p.Liveness)
		if s := a.seen(p.Liveness); s != "" {
			line += ", seen " + s
		}
		line += detail(describePath(p.Liveness))
		if f := describeFree(p.Free); f != "" {
			line += ", free: " + f
		}
		if p.State == "away" {
			line += detail(p.Reason)
		}
		t.row("  "+p.Name+":", line)
	}
}
