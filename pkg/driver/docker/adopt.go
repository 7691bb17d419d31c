package docker

import (
	"context"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"golang.org/x/sync/errgroup"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

// adoptAtOnce bounds the containers looked at together.
const adoptAtOnce = 8

// Adopt returns the containers of this node, running or ended. One that was made
// and never started is what a crash left of a start, and is removed.
func (d *Driver) Adopt(ctx context.Context) ([]driver.Task, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	found, err := d.cli.ContainerList(ctx, container.ListOptions{
		All: true, Filters: filters.NewArgs(filters.Arg("label", labelNode+"="+d.node.String())),
	})
	if err != nil {
		return nil, d.fail(err, "list its containers")
	}
	adopted := make([]*task, len(found))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(adoptAtOnce)
	for i, c := range found {
		g.Go(func() (err error) {
			adopted[i], err = d.adopt(ctx, c.ID)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var tasks []driver.Task
	for _, t := range adopted {
		if t != nil {
			tasks = append(tasks, t)
		}
	}
	return tasks, nil
}

// adopt returns the task of one container, or nil if it is none.
func (d *Driver) adopt(ctx context.Context, id string) (*task, error) {
	got, err := d.cli.ContainerInspect(ctx, id)
	if errdefs.IsNotFound(err) {
		return nil, nil // gone since it was listed
	}
	if err != nil {
		return nil, d.fail(err, "describe a container")
	}
	if err := confined(got); err != nil {
		d.log.Warn("left a container alone", "container", id, "err", err)
		return nil, nil
	}
	labels := got.Config.Labels
	workload := mesh.WorkloadID(labels[labelWorkload])
	if bad := wrongLabels(labels, d.node); bad != "" || got.Name != "/"+containerName(d.node, workload) {
		d.log.Warn("left a container alone", "container", id, "name", got.Name, "label", bad)
		return nil, nil
	}
	if s := got.State.Status; s == container.StateCreated || s == container.StateDead {
		d.log.Info("removed what a start left behind", "workload", workload, "state", s)
		return nil, d.removeContainer(ctx, id)
	}
	port, err := parsePort(labels[labelPort])
	if err != nil {
		return nil, err
	}
	return d.task(got, workload, port), nil
}

// parsePort reads the port label; 0 = the workload has no port.
func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, mesh.Errorf(mesh.Invalid, "a container's port label is %q", clip(s, 20)).Because(err)
	}
	return uint16(n), nil
}
