package main

import "peercompute/pkg/control"

// checks are what the fake node finds. A disk that is full is a problem; it is
// while lending is paused, so that a script can have it either way.
func (n *fakeNode) checks() []control.Check {
	disk := control.Check{Name: "disk", State: control.CheckOK, Detail: "80.0 GiB free"}
	if n.lends.State.Paused {
		disk.State, disk.Detail, disk.Fix = control.CheckProblem, "0.0 GiB free", "make room there"
	}
	return []control.Check{disk, {Name: "peers", State: control.CheckWarning, Detail: "1 of 2 are not connected: gate", Fix: "peerctl peers show NAME"}}
}
