package docker

import (
	"fmt"
	"testing"

	"github.com/docker/docker/api/types/container"
	"pgregory.net/rapid"

	"peercompute/pkg/mesh"
)

// What is listed to the engine names every core but one, and is read back.
func TestAllButOne(t *testing.T) {
	for _, c := range []struct {
		core, n int
		want    string
	}{{0, 2, "1"}, {1, 2, "0"}, {0, 3, "1-2"}, {1, 3, "0,2"}, {2, 3, "0-1"}, {3, 8, "0-2,4-7"}, {6, 8, "0-5,7"}, {7, 8, "0-6"}} {
		if got := allBut(c.core, c.n); got != c.want {
			t.Errorf("all but %d of %d is %q, want %q", c.core, c.n, got, c.want)
		}
		if core, ok := missing(c.want); !ok || core != c.core {
			t.Errorf("%q leaves %d, %t, want %d", c.want, core, ok, c.core)
		}
	}
	if core, ok := missing(""); ok {
		t.Errorf("a container that may run on all cores leaves %d", core)
	}
}

// A peer always leaves the same core while it has work, and no two leave the same one
// while there are others.
func TestCoresAreSharedOut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 8).Draw(t, "cores")
		c := cores{}
		same := func(p mesh.PeerID) mesh.PeerID { return p }
		for i := range rapid.IntRange(1, 40).Draw(t, "steps") {
			if len(c) > 0 && rapid.Bool().Draw(t, "remove") {
				for id := range c {
					delete(c, id)
					break
				}
				continue
			}
			owner := mesh.PeerID(fmt.Sprint("peer", rapid.IntRange(0, 9).Draw(t, "owner")))
			by := map[mesh.PeerID]int{}
			for _, l := range c {
				by[l.owner] = l.core
			}
			leaving := make([]int, n)
			for _, core := range by {
				leaving[core]++
			}
			core := c.choose(owner, n, same)
			if had, ok := by[owner]; ok && had != core {
				t.Fatalf("%s leaves core %d and now %d", owner, had, core)
			} else if !ok {
				for other, k := range leaving {
					if k < leaving[core] {
						t.Fatalf("%s leaves core %d as %d others do, core %d only %d", owner, core, leaving[core], other, k)
					}
				}
			}
			c[mesh.WorkloadID(fmt.Sprint(i))] = leaves{owner, core}
		}
	})
}

// Peers' shared work has all cores but one, also for a driver that finds it there; work
// of this machine's owner and work that asked for cores has all.
func TestCoresOfAContainer(t *testing.T) {
	const n = 4
	d := &Driver{node: testNode, ownerNow: func(p mesh.PeerID) mesh.PeerID { return p }, cores: cores{}}
	e := engine{cpus: n, pins: true}
	owner, other := mesh.PeerID("one"), mesh.PeerID("another")
	work := func(id string, owner mesh.PeerID, r mesh.Resources) mesh.Workload {
		return mesh.Workload{ID: mesh.WorkloadID(id), Owner: owner, Spec: mesh.Spec{Runtime: mesh.Container, Resources: r}}
	}
	for _, c := range []struct {
		name string
		e    engine
		w    mesh.Workload
		want string
	}{
		{"a peer's", e, work("1", owner, mesh.Resources{}), "1-3"},
		{"its next", e, work("2", owner, mesh.Resources{}), "1-3"},
		{"another peer's", e, work("3", other, mesh.Resources{}), "0,2-3"},
		{"with cores of its own", e, work("4", owner, mesh.Resources{MilliCPU: 2000}), ""},
		{"this machine's own", e, work("5", testNode, mesh.Resources{}), ""},
		{"one core", engine{cpus: 1, pins: true}, work("6", owner, mesh.Resources{}), ""},
		{"an engine that cannot", engine{cpus: n}, work("7", owner, mesh.Resources{}), ""},
	} {
		if got := d.coresFor(c.e, c.w); got != c.want {
			t.Errorf("%s: cores %q, want %q", c.name, got, c.want)
		}
	}
	if len(d.cores) != 3 {
		t.Errorf("%d workloads leave a core, want 3", len(d.cores))
	}
	later := &Driver{node: other, ownerNow: d.ownerNow, cores: cores{}}
	later.adoptCores("3", container.InspectResponse{
		ContainerJSONBase: &container.ContainerJSONBase{HostConfig: &container.HostConfig{Resources: container.Resources{CpusetCpus: "0,2-3"}}},
		Config:            &container.Config{Labels: map[string]string{labelOwner: testNode.String()}},
	})
	if got := later.coresFor(e, work("8", testNode, mesh.Resources{})); got != "0,2-3" {
		t.Errorf("after a restart: cores %q, want those that its other work has", got)
	}
}
