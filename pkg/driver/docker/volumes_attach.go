package docker

import (
	"context"
	"errors"
	"maps"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	enginevolume "github.com/docker/docker/api/types/volume"

	"peercompute/pkg/driver"
	"peercompute/pkg/driver/docker/internal/volume"
	"peercompute/pkg/mesh"
)

// This file makes volumes of the engine from the devices of our own, and removes them.

// attached is the volumes of a run as devices, until the engine has mounted them.
type attached struct {
	devices map[string]*volume.Device // by target
}

func (a *attached) close() error {
	var errs []error
	if a != nil {
		for _, dev := range a.devices {
			errs = append(errs, dev.Close())
		}
		a.devices = nil
	}
	return errors.Join(errs...)
}

// attach makes devices of the volumes of a run, and volumes of the engine of those.
func (d *Driver) attach(ctx context.Context, e engine, w mesh.Workload, have []driver.Volume) (_ *attached, err error) {
	if len(have) == 0 {
		return nil, nil
	}
	// An earlier run of it may hold them still.
	if err := errors.Join(d.removeContainer(ctx, containerName(d.node, w.ID)), d.detach(ctx, w.ID)); err != nil {
		return nil, err
	}
	a := &attached{devices: map[string]*volume.Device{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close(), d.detach(context.WithoutCancel(ctx), w.ID))
		}
	}()
	for i, v := range have {
		if err := d.makeVolume(ctx, e, v); err != nil {
			return nil, err
		}
		dev, err := d.volumes.Attach(ctx, v.ID)
		if mesh.KindOf(err) == mesh.Unavailable {
			return nil, mesh.Errorf(mesh.Unavailable, "volume %s is in use still", v.Name).WithRule("volume.in-use").Because(err)
		}
		if err != nil {
			return nil, err
		}
		a.devices[w.Spec.Volumes[i].Target] = dev
		want := enginevolume.CreateOptions{
			Name: engineVolumeName(d.node, w.ID, v.ID), Driver: "local",
			DriverOpts: map[string]string{"type": "ext4", "device": dev.Path, "o": mountOptions},
			Labels:     map[string]string{labelNode: d.node.String(), labelWorkload: string(w.ID)},
		}
		got, err := d.cli.VolumeCreate(ctx, want)
		if err != nil {
			return nil, d.fail(err, "make a volume")
		}
		if err := checkEngineVolume(want, got); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// checkEngineVolume compares a volume of the engine with what was asked for. One that
// was there before is given back as it is.
func checkEngineVolume(want enginevolume.CreateOptions, got enginevolume.Volume) error {
	if got.Name != want.Name || got.Driver != want.Driver || !maps.Equal(got.Options, want.DriverOpts) || !maps.Equal(got.Labels, want.Labels) {
		return mesh.Errorf(mesh.Unsupported, "the container engine has a volume other than the one asked for (%s)", clip(got.Name, 80)).
			WithHint("remove it: docker volume rm %s", clip(got.Name, 80))
	}
	return nil
}

// detach removes what the engine knows of the volumes of a run that has ended.
func (d *Driver) detach(ctx context.Context, run mesh.WorkloadID) error {
	return d.detachAll(ctx, func(v *enginevolume.Volume) bool { return v.Labels[labelWorkload] == string(run) }, filters.Arg("label", labelWorkload+"="+string(run)))
}

func (d *Driver) detachAll(ctx context.Context, which func(*enginevolume.Volume) bool, more ...filters.KeyValuePair) error {
	if d.volumes == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	args := append([]filters.KeyValuePair{filters.Arg("label", labelNode+"="+d.node.String())}, more...)
	list, err := d.cli.VolumeList(ctx, enginevolume.ListOptions{Filters: filters.NewArgs(args...)})
	if err != nil {
		return d.fail(err, "list its volumes")
	}
	var errs []error
	for _, v := range list.Volumes {
		if v == nil || v.Labels[labelNode] != d.node.String() || !which(v) {
			continue
		}
		if err := d.cli.VolumeRemove(ctx, v.Name, false); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, d.fail(err, "remove a volume"))
		}
	}
	return errors.Join(errs...)
}
