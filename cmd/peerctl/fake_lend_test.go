package main

import (
	"encoding/json"
	"net/http"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

// This file plays what a machine lends. Its hours are closed whenever there are any:
// it lends from 22:00.

func fakeLend() control.Lend {
	return control.Lend{
		Workloads: 100, MilliCPU: 8000, Memory: 4 << 30, Disk: 16 << 30, When: "always", Then: "keep",
		State: control.LendState{Open: true},
		Used:  control.Usage{Workloads: 3, Resources: mesh.Resources{MilliCPU: 300, Memory: 300 << 20}}, Available: 9 << 30,
	}
}

func (n *fakeNode) lend(*http.Request) (any, error) { return n.lends, nil }

func (n *fakeNode) setLend(r *http.Request) (any, error) {
	var c control.LendChange
	if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
		return nil, err
	}
	l := &n.lends
	if c.When != nil {
		if *c.When == "sometimes" {
			return nil, mesh.Errorf(mesh.Invalid, "the schedule %q is not understood", *c.When).WithHint("a schedule is always, idle, or windows")
		}
		l.When, l.Set = *c.When, append(l.Set, "when")
	}
	if c.Memory != nil {
		l.Set = append(l.Set, "memory")
	}
	set(&l.Workloads, c.Workloads)
	set(&l.MilliCPU, c.MilliCPU)
	set(&l.Memory, c.Memory)
	set(&l.Disk, c.Disk)
	set(&l.Reserve, c.Reserve)
	set(&l.Then, c.Then)
	set(&l.PriceGFuel, c.PriceGFuel)
	set(&l.PriceContainerSecond, c.PriceContainerSecond)
	n.hours()
	return *l, nil
}

func (n *fakeNode) resetLend(*http.Request) (any, error) {
	n.lends = fakeLend()
	return n.lends, nil
}

func (n *fakeNode) hours() {
	if n.lends.When == "always" {
		n.lends.State = control.LendState{Open: true}
		return
	}
	n.lends.State = control.LendState{Reason: "lends from 22:00 CET", Opens: time.Now().Add(time.Hour), Then: n.lends.Then}
}

func (n *fakeNode) pause(r *http.Request) (any, error) {
	var p control.Pause
	if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
		return nil, err
	}
	if p.Then == "" {
		p.Then = "keep"
	}
	s := control.LendState{Paused: true, Reason: "by its owner, until that is resumed", Then: p.Then}
	if p.For > 0 {
		s.Opens = time.Date(2126, 1, 2, 15, 4, 0, 0, time.UTC)
		s.Reason = "by its owner, until " + s.Opens.Format("15:04 MST")
	}
	n.lends.State = s
	for i := range n.workloads {
		w := &n.workloads[i]
		if w.Owner != self && p.Then != "keep" {
			setState(w, mesh.Paused)
			w.Status.Reason = s.Reason
		}
	}
	return s, nil
}

func (n *fakeNode) resume(*http.Request) (any, error) {
	n.hours()
	return n.lends.State, nil
}
