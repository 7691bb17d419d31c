package docker

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

// probe is the program that a health check runs inside a container.
type probe struct {
	mu   sync.Mutex // one at a time
	left string     // the engine's ID of one that had not ended in time; "" = none
}

var _ driver.Prober = (*task)(nil)

// Probe runs argv in the container, as the workload's own user and in all that
// confines it: the engine starts a further process of the same container. One that
// runs over its time is killed, and none joins one that does not end even so.
func (t *task) Probe(ctx context.Context, argv []string) (int, error) {
	t.probe.mu.Lock()
	defer t.probe.mu.Unlock()
	if t.probe.left != "" {
		got, err := t.driver.cli.ContainerExecInspect(ctx, t.probe.left)
		if err != nil {
			return 0, t.driver.fail(err, "look at the last health check")
		}
		if got.Running {
			return 0, mesh.Errorf(mesh.Timeout, "the last health check has not ended")
		}
		t.probe.left = ""
	}
	made, err := t.driver.cli.ContainerExecCreate(ctx, t.container, container.ExecOptions{Cmd: argv, AttachStdout: true})
	if err != nil {
		return 0, t.driver.fail(err, "prepare the health check")
	}
	t.probe.left = made.ID
	conn, err := t.driver.cli.ContainerExecAttach(ctx, made.ID, container.ExecAttachOptions{})
	if err != nil {
		return 0, t.driver.fail(err, "run the health check")
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, conn.Close)()
	_, err = io.Copy(io.Discard, conn.Reader) // until the program has ended
	if ctx.Err() != nil {
		t.endProbe(ctx, made.ID)
		return 0, mesh.AsError(ctx.Err())
	}
	if err != nil {
		return 0, t.driver.fail(err, "run the health check")
	}
	got, err := t.driver.cli.ContainerExecInspect(ctx, made.ID)
	if err != nil {
		return 0, t.driver.fail(err, "look at the health check")
	}
	if got.Running { // it closed its output and goes on
		t.endProbe(ctx, made.ID)
		return 0, mesh.Errorf(mesh.Timeout, "the health check goes on without its output")
	}
	t.probe.left = ""
	return got.ExitCode, nil
}

// probeEnd is how long the engine may take to notice that a process was killed.
const probeEnd = 5 * time.Second

// endProbe kills a health check's program, with what it started in its session.
func (t *task) endProbe(ctx context.Context, id string) {
	p, err := t.execed(ctx, id)
	if err != nil {
		t.driver.log.Warn("cannot end a health check that is over its time", "workload", t.id, "err", err)
		return
	}
	if p != nil {
		p.killSession(t.driver.log)
		p.close()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeEnd)
	defer cancel()
	if _, err := t.execStatus(ctx, id); err == nil {
		t.probe.left = ""
	}
}
