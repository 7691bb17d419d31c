package docker

import (
	"context"
	"errors"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"

	"peercompute/pkg/driver"
	"peercompute/pkg/driver/docker/internal/usernet"
	"peercompute/pkg/mesh"
)

// Start runs w as a container and returns once its program was executed.
func (d *Driver) Start(ctx context.Context, w mesh.Workload) (driver.Task, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if w.Spec.Port != 0 {
		if err := canEnter(); err != nil {
			return nil, err
		}
	}
	e, err := d.knowEngine(ctx)
	if err != nil {
		return nil, err
	}
	if e.secludes && (w.Spec.Port != 0 || connects(w.Spec)) {
		return nil, mesh.Errorf(mesh.Unsupported, "this machine's container runtime keeps the network of its sandboxes to itself, so a container here has neither a port nor egress").
			WithHint("its owner can register runsc with \"runtimeArgs\": [\"--network=host\"]; host means the container's own namespace")
	}
	if n := int64(e.cpus) * 1000; n > 0 && w.Spec.Resources.MilliCPU > n {
		return nil, mesh.Errorf(mesh.Quota, "%.3g cores are more than the %d of this machine", float64(w.Spec.Resources.MilliCPU)/1000, e.cpus).
			WithHint("deploy with --cpus %d or less", e.cpus)
	}
	img, err := d.imageFor(ctx, e, w)
	if err != nil {
		return nil, err
	}
	if !connects(w.Spec) {
		return d.startIn(ctx, e, w, img, nil)
	}
	if err := errors.Join(usernet.Available(), canEnter(), d.closeWays(ctx, w.ID)); err != nil {
		return nil, err
	}
	y, err := d.openSandbox(ctx, e, w)
	if err != nil {
		return nil, err
	}
	t, err := d.startIn(ctx, e, w, img, y)
	if err != nil {
		return nil, errors.Join(err, d.closeSandbox(ctx, y))
	}
	return t, nil
}

// startIn makes the container of w and starts it, in the sandbox if it has one.
func (d *Driver) startIn(ctx context.Context, e engine, w mesh.Workload, img image, y *way) (driver.Task, error) {
	var sandbox string
	if y != nil {
		sandbox = y.sandbox
	}
	have, err := d.volumesOf(w)
	if err != nil {
		return nil, err
	}
	want, err := build(d.node, w, img, userWith(w.ID, e, have), sandbox, have)
	if err != nil {
		return nil, err
	}
	want.host.Runtime = d.runtime
	want.host.CpusetCpus = d.coresFor(e, w)
	devices, err := d.attach(ctx, e, w, have)
	if err != nil {
		return nil, err
	}
	secrets, err := d.placeSecrets(ctx, e, w, &want)
	var got container.InspectResponse
	if err == nil {
		got, err = d.createAndRun(ctx, e, want, w)
	}
	if err == nil {
		err = checkSecrets(got, secrets)
	}
	if err == nil {
		err = checkMounted(e, got, wantMounted(w, have), d.volumes.On)
	}
	err = errors.Join(err, devices.close()) // what is mounted keeps its device
	if err != nil {
		if got.ContainerJSONBase != nil {
			err = errors.Join(err, d.discard(ctx, got.ID))
		}
		if secrets != "" {
			err = errors.Join(err, d.dropSecrets(context.WithoutCancel(ctx), w.ID))
		}
		if len(have) > 0 {
			err = errors.Join(err, d.detach(context.WithoutCancel(ctx), w.ID))
		}
		return nil, err
	}
	t := d.task(got, w.ID, w.Spec.Port, y)
	t.secrets = secrets
	return t, nil
}

func (d *Driver) createAndRun(ctx context.Context, e engine, want blueprint, w mesh.Workload) (container.InspectResponse, error) {
	id, err := d.create(ctx, want)
	if err != nil {
		return container.InspectResponse{}, err
	}
	got, err := d.run(ctx, e, want, id, w)
	if err != nil {
		return container.InspectResponse{}, errors.Join(err, d.discard(ctx, id))
	}
	return got, nil
}

// closeWays ends what earlier runs of a workload left of a network.
func (d *Driver) closeWays(ctx context.Context, id mesh.WorkloadID) error {
	d.mu.Lock()
	var old []*way
	for y := range d.ways {
		if y.work.ID == id {
			old = append(old, y)
		}
	}
	d.mu.Unlock()
	var errs []error
	for _, y := range old {
		errs = append(errs, d.closeSandbox(ctx, y))
	}
	return errors.Join(errs...)
}

// How often the engine is asked anew for a container whose name is taken.
const (
	nameLookFirst = 20 * time.Millisecond
	nameLookMost  = time.Second
)

// create makes the container, after removing what an earlier run left. That is
// met as a conflict of names, so that a first run costs no call.
func (d *Driver) create(ctx context.Context, want blueprint) (string, error) {
	made, err := d.cli.ContainerCreate(ctx, want.config, want.host, nil, nil, want.name)
	// While the engine still makes it for a peerd that was killed, its name is taken and
	// there is nothing to remove yet.
	for pause := nameLookFirst; errdefs.IsConflict(err) && ctx.Err() == nil; pause = min(2*pause, nameLookMost) {
		if err := d.removeContainer(ctx, want.name); err != nil {
			return "", err
		}
		if made, err = d.cli.ContainerCreate(ctx, want.config, want.host, nil, nil, want.name); errdefs.IsConflict(err) {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		}
	}
	if list := want.host.CpusetCpus; list != "" && noSuchCores(err) { // it numbers them otherwise
		d.log.Warn("the container engine numbers its cores in another way, so peers' work may run on all", "cores", list, "err", err)
		d.unpin()
		want.host.CpusetCpus = ""
		return d.create(ctx, want)
	}
	switch {
	case errdefs.IsNotFound(err):
		return "", mesh.Errorf(mesh.NotFound, "the image %s is no longer on this machine", want.config.Image).
			WithHint("deploy again to pull it").Because(err)
	case err != nil && made.ID == "":
		return "", d.fail(err, "create the container")
	case err != nil:
		return "", errors.Join(d.fail(err, "create the container"), d.discard(ctx, made.ID))
	}
	return made.ID, nil
}

// run checks the container that was made, starts it, and says what it became.
func (d *Driver) run(ctx context.Context, e engine, want blueprint, id string, w mesh.Workload) (got container.InspectResponse, err error) {
	if got, err = d.cli.ContainerInspect(ctx, id); err != nil {
		return got, d.fail(err, "describe the container")
	}
	if err := check(want, e, got); err != nil {
		return got, err
	}
	if err := d.cli.ContainerStart(ctx, id, container.StartOptions{}); err != nil {
		return got, d.failStart(err, w)
	}
	if got, err = d.cli.ContainerInspect(ctx, id); err != nil {
		return got, d.fail(err, "describe the container")
	}
	return got, nil
}

// Remove deletes the container of a workload, its scratch, its log and its network. Its
// volumes stay.
func (d *Driver) Remove(ctx context.Context, id mesh.WorkloadID) error {
	if _, err := mesh.ParseWorkloadID(string(id)); err != nil {
		return err
	}
	if err := d.removeContainer(ctx, containerName(d.node, id)); err != nil {
		return err
	}
	if err := errors.Join(d.dropSecrets(ctx, id), d.detach(ctx, id), d.closeWays(ctx, id), d.removeContainer(ctx, sandboxName(d.node, id))); err != nil {
		return err
	}
	d.mu.Lock()
	delete(d.pinned, id)
	delete(d.cores, id)
	d.mu.Unlock()
	return nil
}

// discard removes a container that must not stay, even if ctx has ended.
func (d *Driver) discard(ctx context.Context, id string) error {
	return d.removeContainer(context.WithoutCancel(ctx), id)
}

// removeContainer kills and removes a container, by name or ID. It is no error if
// there is none.
func (d *Driver) removeContainer(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	err := d.cli.ContainerRemove(ctx, name, container.RemoveOptions{Force: true, RemoveVolumes: true})
	if errdefs.IsConflict(err) { // somebody else is removing it
		err = d.waitFor(ctx, name, container.WaitConditionRemoved)
	}
	if err == nil || errdefs.IsNotFound(err) {
		return nil
	}
	return d.fail(err, "remove the container")
}

// waitFor blocks until the container has met the condition, or ctx has ended.
func (d *Driver) waitFor(ctx context.Context, name string, until container.WaitCondition) error {
	ended, failed := d.cli.ContainerWait(ctx, name, until)
	select { // the client ends one of the two when ctx ends
	case <-ended:
		return nil
	case err := <-failed:
		return err
	}
}
