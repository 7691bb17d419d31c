package docker

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	enginevolume "github.com/docker/docker/api/types/volume"
	"golang.org/x/sync/errgroup"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

// adoptAtOnce bounds the containers looked at together.
const adoptAtOnce = 8

// Adopt returns the containers of this node, running or ended. One that was made
// and never started is what a crash left of a start, and is removed; so is a sandbox
// that no workload runs in, and a workload whose sandbox is gone.
func (d *Driver) Adopt(ctx context.Context) ([]driver.Task, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	found, err := d.cli.ContainerList(ctx, container.ListOptions{
		All: true, Filters: filters.NewArgs(filters.Arg("label", labelNode+"="+d.node.String())),
	})
	if err != nil {
		return nil, d.fail(err, "list its containers")
	}
	inspected := make([]container.InspectResponse, len(found))
	err = inParallel(ctx, len(found), func(ctx context.Context, i int) (err error) {
		inspected[i], err = d.ours(ctx, found[i].ID)
		return err
	})
	if err != nil {
		return nil, err
	}
	var sandboxes, workloads []container.InspectResponse
	for _, got := range inspected {
		switch {
		case got.Config == nil: // not one of ours
		case got.Config.Labels[labelRole] == roleSandbox:
			sandboxes = append(sandboxes, got)
		default:
			workloads = append(workloads, got)
		}
	}
	opened := make([]*way, len(sandboxes))
	err = inParallel(ctx, len(sandboxes), func(ctx context.Context, i int) (err error) {
		opened[i], err = d.adoptSandbox(ctx, sandboxes[i])
		return err
	})
	ways := map[string]*way{}
	for _, y := range opened {
		if y != nil {
			ways[y.sandbox] = y
		}
	}
	var tasks []driver.Task
	secrets := map[string]bool{} // directories that are in use
	for i := 0; i < len(workloads) && err == nil; i++ {
		var t *task
		if t, err = d.adopt(ctx, workloads[i], ways); t != nil {
			tasks, secrets[t.secrets] = append(tasks, t), true
			if t.way != nil {
				delete(ways, t.way.sandbox)
			}
		}
	}
	if err != nil {
		return nil, err // asked again, it goes on from the ways that are open
	}
	runs := map[string]bool{}
	for _, t := range tasks {
		runs[string(t.ID())] = true
	}
	err = d.detachAll(ctx, func(v *enginevolume.Volume) bool { return !runs[v.Labels[labelWorkload]] })
	err = errors.Join(err, d.sweepSecrets(secrets))
	for _, y := range ways { // nobody's, or not to be used
		err = errors.Join(err, d.closeSandbox(ctx, y))
	}
	return tasks, err
}

// inParallel calls f for 0 to n-1, a few at a time.
func inParallel(ctx context.Context, n int, f func(context.Context, int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(adoptAtOnce)
	for i := range n {
		g.Go(func() error { return f(ctx, i) })
	}
	return g.Wait()
}

// ours describes a container that carries our labels, if it has the name that goes
// with them; otherwise the description is empty.
func (d *Driver) ours(ctx context.Context, id string) (container.InspectResponse, error) {
	var none container.InspectResponse
	got, err := d.cli.ContainerInspect(ctx, id)
	if errdefs.IsNotFound(err) {
		return none, nil // gone since it was listed
	}
	if err != nil {
		return none, d.fail(err, "describe a container")
	}
	// Whether what it joins is a sandbox is asked when those are known.
	if err := confined(got, func(string) bool { return got.Config.Labels[labelRole] == "" }); err != nil {
		d.log.Warn("left a container alone", "container", id, "err", err)
		return none, nil
	}
	labels := got.Config.Labels
	workload := mesh.WorkloadID(labels[labelWorkload])
	name := containerName(d.node, workload)
	if labels[labelRole] == roleSandbox {
		name = sandboxName(d.node, workload)
	}
	if bad := wrongLabels(labels, d.node); bad != "" || got.Name != "/"+name {
		d.log.Warn("left a container alone", "container", id, "name", got.Name, "label", bad)
		return none, nil
	}
	return got, nil
}

// adopt returns the task of one container, or nil if it is none.
func (d *Driver) adopt(ctx context.Context, got container.InspectResponse, ways map[string]*way) (*task, error) {
	labels := got.Config.Labels
	workload := mesh.WorkloadID(labels[labelWorkload])
	if s := got.State.Status; s == container.StateCreated || s == container.StateDead {
		d.log.Info("removed what a start left behind", "workload", workload, "state", s)
		return nil, d.removeContainer(ctx, got.ID)
	}
	var y *way
	if id, ok := strings.CutPrefix(string(got.HostConfig.NetworkMode), sandboxPrefix); ok {
		y = ways[id]
		if y != nil && y.work.ID != workload {
			y = nil
		}
		if y == nil && got.State.Running {
			d.log.Warn("removed a workload without its network; it is started again if it is wanted", "workload", workload)
			return nil, d.removeContainer(ctx, got.ID)
		}
		if !got.State.Running {
			y = nil
		}
	}
	if labels[labelVolumes] != "" {
		e, err := d.knowEngine(ctx)
		if err != nil {
			return nil, err
		}
		if err := d.adoptVolumes(e, got); err != nil {
			d.log.Warn("removed a workload whose volumes are not as they should be", "workload", workload, "err", err)
			return nil, d.removeContainer(ctx, got.ID)
		}
	}
	secrets, err := d.adoptSecrets(ctx, got)
	if err != nil {
		d.log.Warn("removed a workload whose secrets are not as they should be", "workload", workload, "err", err)
		return nil, d.removeContainer(ctx, got.ID)
	}
	port, err := parsePort(labels[labelPort])
	if err != nil {
		return nil, err
	}
	d.adoptCores(workload, got)
	d.endExecs(ctx, got)
	if got.State.Running { // an earlier peerd may have held it
		if err := d.giveCPU(ctx, got.ID, func(own int64) int64 { return own }); err != nil {
			d.log.Warn("cannot let go of a container", "workload", workload, "err", err)
		}
	}
	t := d.task(got, workload, port, y)
	t.secrets = secrets
	t.away = endedBefore(got.State, d.booted)
	return t, nil
}

// endedBefore reports whether a container had ended by then: of the machine's start,
// that its shutdown had ended it, since peerd would have noted an end of its own.
func endedBefore(s *container.State, then time.Time) bool {
	at, err := time.Parse(time.RFC3339Nano, s.FinishedAt)
	return err == nil && !s.Running && at.Before(then)
}

// parsePort reads the port label; 0 = the workload has no port.
func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, mesh.Errorf(mesh.Invalid, "a container's port label is %q", clip(s, 20)).Because(err)
	}
	return uint16(n), nil
}
