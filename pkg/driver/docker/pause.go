package docker

import (
	"context"

	"github.com/containerd/errdefs"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

var _ driver.Pauser = (*task)(nil)

// Pause freezes every process of the container, in the kernel's freezer.
func (t *task) Pause(ctx context.Context) error {
	if t.paused.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := t.driver.cli.ContainerPause(ctx, t.container)
	if err != nil {
		if err = t.unless(ctx, err, true); err != nil {
			return t.driver.fail(err, "pause the container")
		}
	}
	t.paused.Store(true)
	return nil
}

// Resume lets the container go on.
func (t *task) Resume(ctx context.Context) error {
	if !t.paused.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := t.driver.cli.ContainerUnpause(ctx, t.container)
	if err != nil {
		if err = t.unless(ctx, err, false); err != nil {
			return t.driver.fail(err, "resume the container")
		}
	}
	t.paused.Store(false)
	return nil
}

// unless is err, or nil if the container is as it should be in spite of it: frozen
// already or not, or not running at all.
func (t *task) unless(ctx context.Context, err error, paused bool) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	got, ierr := t.driver.cli.ContainerInspect(ctx, t.container)
	if errdefs.IsNotFound(ierr) || ierr == nil && (!got.State.Running || got.State.Paused == paused) {
		return nil
	}
	return err
}

// wake lets a frozen container take the signals of a stop.
func (t *task) wake(ctx context.Context) {
	if err := t.Resume(ctx); err != nil && mesh.KindOf(err) != mesh.NotFound {
		t.driver.log.Warn("cannot resume a container to stop it", "workload", t.id, "err", err)
	}
}
