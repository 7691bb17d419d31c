package docker

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"

	"peercompute/pkg/mesh"
)

// cores remembers which core each peer's shared work leaves to others. A peer whose
// containers take whatever processor time there is to spare never has all cores: it
// leaves one, and different peers leave different ones while there are enough. So there
// is always a core on which it keeps nobody waiting.
type cores map[mesh.WorkloadID]leaves

type leaves struct {
	owner mesh.PeerID
	core  int
}

// choose returns the core that owner's work leaves: the one that it leaves already, or
// else the one that the fewest others leave, the first first.
func (c cores) choose(owner mesh.PeerID, n int, now func(mesh.PeerID) mesh.PeerID) int {
	leaving := make([]map[mesh.PeerID]bool, n)
	for i := range leaving {
		leaving[i] = map[mesh.PeerID]bool{}
	}
	owner = now(owner)
	kept := -1
	for _, l := range c {
		if l.core >= n {
			continue
		}
		if by := now(l.owner); by != owner {
			leaving[l.core][by] = true
		} else if kept < 0 || l.core < kept {
			kept = l.core
		}
	}
	if kept >= 0 {
		return kept
	}
	least := 0
	for i := range leaving {
		if len(leaving[i]) < len(leaving[least]) {
			least = i
		}
	}
	return least
}

// coresFor is the cores that a workload may run on, as the kernel lists them, until it is
// removed; empty = all, as for work of this machine's owner and work that asked for cores
// of its own.
func (d *Driver) coresFor(e engine, w mesh.Workload) string {
	r := w.Spec.WithDefaults().Resources
	if !e.pins || e.cpus < 2 || !r.SharedCPU || d.ownerNow(w.Owner) == d.node {
		return ""
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	core := d.cores.choose(w.Owner, e.cpus, d.ownerNow)
	d.cores[w.ID] = leaves{w.Owner, core}
	return allBut(core, e.cpus)
}

// adoptCores notes what a container of an earlier peerd leaves.
func (d *Driver) adoptCores(id mesh.WorkloadID, got container.InspectResponse) {
	owner, err := mesh.ParsePeerID(got.Config.Labels[labelOwner])
	core, ok := missing(got.HostConfig.CpusetCpus)
	if err != nil || !ok {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cores[id] = leaves{owner, core}
}

// unpin gives up on sharing out the cores of an engine that numbers them in its own way.
func (d *Driver) unpin() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.engine != nil {
		e := *d.engine
		e.pins = false
		d.engine = &e
	}
	clear(d.cores)
}

// noSuchCores reports whether a container was refused because of the cores it was to
// have; the engine says so in words only.
func noSuchCores(err error) bool {
	return errdefs.IsInvalidArgument(err) && strings.Contains(err.Error(), "CPUs are not available")
}

// allBut lists the cores 0 to n-1 without one: "0-2,4-7".
func allBut(core, n int) string {
	var parts []string
	for _, r := range [][2]int{{0, core - 1}, {core + 1, n - 1}} {
		switch first, last := r[0], r[1]; {
		case first == last:
			parts = append(parts, strconv.Itoa(first))
		case first < last:
			parts = append(parts, fmt.Sprintf("%d-%d", first, last))
		}
	}
	return strings.Join(parts, ",")
}

// missing is the core that allBut left out.
func missing(list string) (core int, ok bool) {
	first, rest, _ := strings.Cut(list, ",")
	from, to, _ := strings.Cut(first, "-")
	if from != "0" {
		return 0, list != "" && rest == ""
	}
	if to == "" {
		to = from
	}
	last, err := strconv.Atoi(to)
	return last + 1, err == nil
}
