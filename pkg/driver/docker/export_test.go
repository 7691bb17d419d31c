package docker

import (
	"context"

	"github.com/docker/docker/api/types/container"

	"peercompute/pkg/driver"
)

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
