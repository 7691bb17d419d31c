package docker

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

var _ driver.Execer = (*task)(nil)

// How often the engine is asked about a program that it was told to start.
const (
	execLookFirst = 2 * time.Millisecond
	execLookMost  = 250 * time.Millisecond
)

// Exec runs a further program in the container. The engine makes it a process of the
// same container; what it made is looked at before the program is given any input.
func (t *task) Exec(ctx context.Context, e driver.Exec) (int, error) {
	made, err := t.driver.cli.ContainerExecCreate(ctx, t.container, container.ExecOptions{
		Cmd: e.Argv, Tty: e.TTY, AttachStdin: e.Stdin != nil, AttachStdout: true, AttachStderr: true,
	})
	if err != nil {
		return 0, t.driver.fail(err, "prepare the program")
	}
	conn, err := t.driver.cli.ContainerExecAttach(ctx, made.ID, container.ExecAttachOptions{Tty: e.TTY})
	if err != nil {
		return 0, t.driver.fail(err, "run the program")
	}
	defer conn.Close()
	p, err := t.execed(ctx, made.ID)
	if p != nil {
		defer p.close()
	}
	if err == nil && p != nil {
		err = p.confined()
	}
	if err == nil {
		err = t.pumpUntil(ctx, conn, made.ID, e, p)
	}
	if err == nil {
		var status int
		if status, err = t.execStatus(ctx, made.ID); err == nil {
			return status, nil
		}
	}
	conn.Close()
	// The engine kills nothing because its attachment is gone.
	if p != nil {
		p.killSession(t.driver.log)
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	return 0, err
}

// execed waits until the engine has started the program; nil if it has ended already,
// or could not be started, which its status will say.
func (t *task) execed(ctx context.Context, id string) (*process, error) {
	// Whatever happens to ctx: what was started must be known, to be ended.
	ask, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	for pause := execLookFirst; ; pause = min(2*pause, execLookMost) {
		got, err := t.driver.cli.ContainerExecInspect(ask, id)
		switch {
		case err != nil:
			return nil, t.driver.fail(err, "look at the program")
		case got.Pid != 0 && got.Running:
			return findProcess(got.Pid, t.container)
		case got.Pid != 0 || got.ExitCode != 0:
			return nil, nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ask.Done():
			timer.Stop()
			return nil, mesh.Errorf(mesh.Timeout, "the container engine did not start the program")
		}
	}
}

// pumpUntil is pump; when ctx ends it kills the program at once, also while a write of
// its output waits.
func (t *task) pumpUntil(ctx context.Context, conn types.HijackedResponse, id string, e driver.Exec, p *process) error {
	if p == nil {
		return t.pump(ctx, conn, id, e)
	}
	killed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(killed)
		p.killSession(t.driver.log)
	})
	err := t.pump(ctx, conn, id, e)
	if !stop() {
		<-killed // p is in use until then
	}
	return err
}

// pump carries what goes in and comes out, until the program's output has ended.
func (t *task) pump(ctx context.Context, conn types.HijackedResponse, id string, e driver.Exec) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, conn.Close)()
	if e.Stdin != nil {
		go func() { // ends with Stdin
			_, _ = io.Copy(conn.Conn, e.Stdin)
			_ = conn.CloseWrite()
		}()
	}
	if e.TTY && e.Size != nil {
		wg.Go(func() { t.resize(ctx, id, e.Size) })
	}
	var err error
	if e.TTY {
		_, err = io.Copy(e.Stdout, conn.Reader)
	} else {
		_, err = stdcopy.StdCopy(e.Stdout, e.Stderr, conn.Reader)
	}
	if err != nil {
		return t.driver.fail(err, "read what the program writes")
	}
	return nil
}

func (t *task) resize(ctx context.Context, id string, sizes <-chan driver.WindowSize) {
	for {
		select {
		case s, ok := <-sizes:
			if !ok {
				return
			}
			if s.Rows == 0 || s.Columns == 0 {
				continue
			}
			err := t.driver.cli.ContainerExecResize(ctx, id, container.ResizeOptions{Height: uint(s.Rows), Width: uint(s.Columns)})
			if err != nil && ctx.Err() == nil {
				t.driver.log.Debug("cannot size a terminal", "workload", t.id, "err", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// execStatus waits until the program has ended: it may have closed its output before.
func (t *task) execStatus(ctx context.Context, id string) (int, error) {
	for pause := execLookFirst; ; pause = min(2*pause, execLookMost) {
		got, err := t.driver.cli.ContainerExecInspect(ctx, id)
		if err != nil {
			return 0, t.driver.fail(err, "look at the program")
		}
		if !got.Running {
			return got.ExitCode, nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return 0, context.Cause(ctx)
		}
	}
}

// endExecs kills the programs that an earlier peerd left running in a container.
func (d *Driver) endExecs(ctx context.Context, got container.InspectResponse) {
	for _, id := range got.ExecIDs {
		x, err := d.cli.ContainerExecInspect(ctx, id)
		if err != nil || !x.Running || x.Pid == 0 || x.ContainerID != got.ID {
			continue
		}
		if p, err := findProcess(x.Pid, got.ID); err == nil && p != nil {
			p.killSession(d.log)
			p.close()
		}
	}
}
