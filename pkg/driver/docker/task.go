package docker

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

// task is one run of a workload: one container, once started.
type task struct {
	driver    *Driver
	id        mesh.WorkloadID
	container string // the engine's ID: a later run of the workload has another
	port      uint16
	memory    int64    // bytes allowed
	namespace string   // file of its network namespace; "" = it has ended
	way       *way     // what it reaches; nil = nothing
	pid       int      // of its first process
	scratch   []string // its writable directories
	stopped   atomic.Bool
	away      bool        // the engine was, or the machine, while nobody looked; of Wait alone
	paused    atomic.Bool // as far as we know; nobody else pauses our containers
	probe     probe
	secrets   string // the directory of its secrets; "" = none

	outputHeld atomic.Int64 // when it last had to wait, in Unix nanoseconds; 0 = never
	unpace     context.CancelFunc
}

func (d *Driver) task(got container.InspectResponse, id mesh.WorkloadID, port uint16, y *way) *task {
	t := &task{
		driver: d, id: id, container: got.ID, port: port, way: y,
		memory: got.HostConfig.Memory, namespace: got.NetworkSettings.SandboxKey,
	}
	if y != nil {
		t.namespace = y.where()
	}
	if got.State != nil {
		t.pid = got.State.Pid
	}
	t.scratch = slices.DeleteFunc(slices.Sorted(maps.Keys(got.HostConfig.Tmpfs)), func(dir string) bool { return dir == shmDir })
	t.paused.Store(got.State != nil && got.State.Paused)
	ctx, cancel := context.WithCancel(d.ctx)
	t.unpace = cancel
	if got.State != nil && got.State.Running {
		d.watching.Do(func() { d.beside.Go(func() { d.watchKills(d.ctx) }) })
		d.beside.Go(func() { t.pace(ctx) })
	}
	return t
}

// ID is the workload's.
func (t *task) ID() mesh.WorkloadID { return t.id }

// Dial connects to the workload's port over the loopback of its own namespace.
func (t *task) Dial(ctx context.Context) (net.Conn, error) {
	if t.port == 0 {
		return nil, mesh.Errorf(mesh.Invalid, "workload %s has no port", t.id).WithHint("deploy it with --port")
	}
	return t.DialPort(ctx, t.port)
}

var _ driver.PortDialer = (*task)(nil)

// DialPort connects to any port over the loopback of the workload's namespace.
func (t *task) DialPort(ctx context.Context, port uint16) (net.Conn, error) {
	if t.namespace == "" {
		return nil, mesh.Errorf(mesh.Unavailable, "workload %s has ended", t.id)
	}
	return dialInside(ctx, t.namespace, netip.AddrPortFrom(loopback, port))
}

// closeNetwork takes away the network and the secrets of a run that has ended. What fails here is made
// up for by Remove and by the next Start.
func (t *task) closeNetwork(ctx context.Context) {
	t.unpace()
	t.wipeSecrets()
	if err := t.driver.closeSandbox(ctx, t.way); err != nil {
		t.driver.log.Warn("cannot remove the network of a workload", "workload", t.id, "err", err)
	}
}

// How often Wait asks again while the engine does not answer.
const (
	waitAgainFirst = 250 * time.Millisecond
	waitAgainMost  = 5 * time.Second
)

// Wait blocks until the container has ended. An engine that goes away meanwhile
// is asked again until it is back or ctx ends.
func (t *task) Wait(ctx context.Context) (mesh.Exit, error) {
	pause := waitAgainFirst
	for {
		began := t.driver.now()
		t.away = t.away && !t.runsOn(ctx) // it outlived that
		exit, err := t.wait(ctx)
		if err == nil {
			t.closeNetwork(ctx)
			return exit, nil
		}
		if ctx.Err() != nil {
			return mesh.Exit{}, t.driver.fail(ctx.Err(), "wait for the container")
		}
		if errdefs.IsNotFound(err) {
			return mesh.Exit{}, mesh.Errorf(mesh.NotFound, "the container of %s is gone", t.id).Because(err)
		}
		if t.driver.now().Sub(began) > waitAgainMost {
			pause = waitAgainFirst
		}
		t.away = true
		t.driver.log.Debug("waiting for a container broke off", "workload", t.id, "err", err, "again", pause)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return mesh.Exit{}, t.driver.fail(ctx.Err(), "wait for the container")
		}
		pause = min(2*pause, waitAgainMost)
	}
}

func (t *task) wait(ctx context.Context) (mesh.Exit, error) {
	if err := t.driver.waitFor(ctx, t.container, container.WaitConditionNotRunning); err != nil {
		return mesh.Exit{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	got, err := t.driver.cli.ContainerInspect(ctx, t.container)
	if err != nil {
		return mesh.Exit{}, err
	}
	exit := mesh.Exit{Code: got.State.ExitCode}
	switch {
	case got.State.OOMKilled && exit.Code != 0:
		exit.Kind = mesh.OutOfMemory
		exit.Reason = "killed: memory " + bytesText(t.memory)
	case t.stopped.Load():
		exit.Kind = mesh.Canceled
		exit.Reason = "stopped"
	case got.State.Error != "":
		exit.Reason = clip(got.State.Error, 200)
	case t.driver.leaves(ctx):
		// It ends its containers, politely, so that the program's status may be 0.
		return mesh.Exit{}, errEngineLeaves
	case t.away:
		exit.Kind = mesh.Unavailable
		exit.Reason = "ended with the container engine"
	}
	return exit, nil
}

var errEngineLeaves = errors.New("the container engine takes no more connections")

// leaves reports whether the engine takes no more connections, though it may still
// answer on those that it has.
func (d *Driver) leaves(ctx context.Context) bool {
	c, err := d.cli.Dialer()(ctx)
	if err != nil {
		return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)
	}
	c.Close()
	return false
}

// runsOn reports whether the container runs, as far as the engine says so.
func (t *task) runsOn(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	got, err := t.driver.cli.ContainerInspect(ctx, t.container)
	return err == nil && got.State.Running
}

// Stop asks the program to end with the image's stop signal, and kills it after
// grace.
func (t *task) Stop(ctx context.Context, grace time.Duration) error {
	t.stopped.Store(true)
	ctx, cancel := context.WithTimeout(ctx, grace+callTimeout)
	defer cancel()
	t.wake(ctx)
	// The engine counts in whole seconds. So it gets one more, and the rest is ours.
	seconds := 0
	if grace > 0 {
		seconds = int((grace + time.Second - 1) / time.Second)
		killed := make(chan struct{})
		kill := time.AfterFunc(grace, func() {
			defer close(killed)
			// It may have ended by now, which is as good.
			if err := t.driver.cli.ContainerKill(ctx, t.container, "KILL"); err != nil && !errdefs.IsConflict(err) && !errdefs.IsNotFound(err) && ctx.Err() == nil {
				t.driver.log.Warn("cannot kill a container", "workload", t.id, "err", err)
			}
		})
		defer func() {
			if !kill.Stop() {
				<-killed
			}
		}()
	}
	err := t.driver.cli.ContainerStop(ctx, t.container, container.StopOptions{Timeout: &seconds})
	if err == nil || errdefs.IsNotFound(err) {
		t.closeNetwork(ctx)
		return nil
	}
	if !client.IsErrConnectionFailed(err) && ctx.Err() == nil {
		// Killed under the engine's hands: what counts is that it runs no more.
		if t.driver.waitFor(ctx, t.container, container.WaitConditionNotRunning) == nil {
			t.closeNetwork(ctx)
			return nil
		}
	}
	return t.driver.fail(err, "stop the container")
}
