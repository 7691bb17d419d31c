package docker

import (
	"context"

	"github.com/docker/docker/api/types/container"

	"peercompute/pkg/driver"
)

// ContainerName is what the container of a workload is called.
var ContainerName = containerName

// Miscount makes the driver believe that its engine has n cores.
func Miscount(ctx context.Context, d *Driver, n int) error {
	e, err := d.knowEngine(ctx)
	e.cpus = n
	d.mu.Lock()
	defer d.mu.Unlock()
	d.engine = &e
	return err
}

// LeaveProbe runs a program as a health check that could not be ended.
func LeaveProbe(ctx context.Context, of driver.Task, argv ...string) error {
	t := of.(*task)
	made, err := t.driver.cli.ContainerExecCreate(ctx, t.container, container.ExecOptions{Cmd: argv})
	if err != nil {
		return err
	}
	t.probe.left = made.ID
	return t.driver.cli.ContainerExecStart(ctx, made.ID, container.ExecStartOptions{Detach: true})
}
