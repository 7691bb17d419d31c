package testmesh

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/docker/client"

	"peercompute/pkg/mesh"
)

const (
	engineLimit    = 30 * time.Second
	complaintLines = 60                     // of a panic or race that are shown
	nodeLabel      = "peercompute.node"     // of every container that a node makes
	workLabel      = "peercompute.workload" // its workload's ID
	roleLabel      = "peercompute.role"     // of what a workload has besides its container
)

// empty removes all workloads of a node that runs, so that nothing outlives it.
func (n *Node) empty() {
	if n.cmd == nil || n.who.Role != "peer" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := n.Client()
	defer c.Close()
	ws, err := c.Workloads(ctx, "self")
	if err != nil {
		n.m.t.Errorf("cannot list the workloads of %s: %v", n.Name, err)
		return
	}
	for _, w := range ws {
		if _, err := c.Remove(ctx, string(w.ID), "self", true); err != nil && mesh.KindOf(err) != mesh.NotFound {
			n.m.t.Errorf("cannot remove %s from %s: %v", w.Name, n.Name, err)
		}
	}
}

// inspect looks for what a stopped node left behind, and removes it.
func (n *Node) inspect() {
	t := n.m.t
	log := n.Log()
	if at := complaint.FindStringIndex(log); at != nil {
		lines := strings.SplitAfterN(log[at[0]:], "\n", complaintLines+1)
		t.Errorf("%s complained:\n%s", n.Name, strings.Join(lines[:min(len(lines), complaintLines)], ""))
	}
	// The kernel ends a killed node's workers, but after the fact.
	var left []int
	for range 50 {
		if left = n.processes(); len(left) == 0 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	for _, pid := range left {
		t.Errorf("%s left a process behind: %d", n.Name, pid)
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	if n.who.Role != "peer" {
		return
	}
	cli, ok := engine()
	if !ok {
		return
	}
	defer cli.Close()
	ctx, cancel := context.WithTimeout(context.Background(), engineLimit)
	defer cancel()
	mine := filters.NewArgs(filters.Arg("label", nodeLabel+"="+n.ID().String()))
	containers, err := cli.ContainerList(ctx, container.ListOptions{All: true, Filters: mine})
	if err != nil {
		t.Error(err)
	}
	for _, c := range containers {
		t.Errorf("%s left a container behind: %v (%s)", n.Name, c.Names, c.Status)
		if err := cli.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true}); err != nil {
			t.Error(err)
		}
	}
	volumes, err := cli.VolumeList(ctx, volume.ListOptions{Filters: mine})
	if err != nil {
		t.Error(err)
	}
	for _, v := range volumes.Volumes {
		t.Errorf("%s left a volume of the engine behind: %s", n.Name, v.Name)
		if err := cli.VolumeRemove(ctx, v.Name, true); err != nil {
			t.Error(err)
		}
	}
	devices, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, d := range devices {
		if b, err := os.ReadFile(d); err == nil && strings.HasPrefix(string(b), n.Home+"/") {
			t.Errorf("%s left a loop device behind: %s is %s", n.Name, d, b)
		}
	}
	networks, err := cli.NetworkList(ctx, network.ListOptions{Filters: mine})
	if err != nil {
		t.Error(err)
	}
	for _, nw := range networks {
		t.Errorf("%s left a network behind: %s", n.Name, nw.Name)
		if err := cli.NetworkRemove(ctx, nw.ID); err != nil {
			t.Error(err)
		}
	}
}

// Workers are the processes that run the node's program, itself left out.
func (n *Node) Workers() []int {
	var out []int
	for _, pid := range n.processes() {
		if n.cmd == nil || pid != n.PID() {
			out = append(out, pid)
		}
	}
	return out
}

func (n *Node) processes() []int {
	var out []int
	all, _ := filepath.Glob("/proc/[0-9]*/exe") // none where there is no /proc
	for _, link := range all {
		if exe, err := os.Readlink(link); err == nil && strings.TrimSuffix(exe, " (deleted)") == n.exe {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link))); err == nil {
				out = append(out, pid)
			}
		}
	}
	return out
}

// Container is one container of a node, as the engine knows it.
type Container struct {
	ID    string
	State string // "running", "exited", …
}

// Containers lists a node's containers by workload. There is an error for a
// workload with two.
func (n *Node) Containers() map[mesh.WorkloadID]Container {
	t := n.m.t
	t.Helper()
	cli, ok := engine()
	if !ok {
		return nil
	}
	defer cli.Close()
	ctx, cancel := context.WithTimeout(context.Background(), engineLimit)
	defer cancel()
	list, err := cli.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", nodeLabel+"="+n.ID().String()))})
	if err != nil {
		t.Fatal(err)
	}
	out := map[mesh.WorkloadID]Container{}
	for _, c := range list {
		if c.Labels[roleLabel] != "" { // the network of one
			continue
		}
		id := mesh.WorkloadID(c.Labels[workLabel])
		if _, twice := out[id]; twice {
			t.Errorf("workload %s has two containers", id)
		}
		out[id] = Container{c.ID, c.State}
	}
	return out
}

// HasEngine reports whether a container engine answers here, for tests that make
// containers take part where they can.
func HasEngine() bool {
	cli, ok := engine()
	if ok {
		cli.Close()
	}
	return ok
}

// engine connects to the local Docker engine, if there is one.
func engine() (*client.Client, bool) {
	c, err := net.DialTimeout("unix", "/var/run/docker.sock", time.Second)
	if err != nil {
		return nil, false
	}
	c.Close()
	cli, err := client.NewClientWithOpts(client.WithAPIVersionNegotiation())
	return cli, err == nil
}
