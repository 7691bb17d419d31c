package docker

import (
	"context"
	"slices"

	"github.com/containerd/errdefs"
	api "github.com/docker/docker/api/types/image"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

var _ driver.Images = (*Driver)(nil)

// maxHeld bounds how many images are looked at.
const maxHeld = 4096

// Platform is what images must be built for.
func (d *Driver) Platform(ctx context.Context) (os, arch string, err error) {
	e, err := d.knowEngine(ctx)
	return "linux", e.arch, err
}

// Held lists the images of the engine, without those that builds left in between.
func (d *Driver) Held(ctx context.Context) ([]driver.HeldImage, error) {
	listing, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	all, err := d.cli.ImageList(listing, api.ListOptions{})
	if err != nil {
		return nil, d.fail(err, "list its images")
	}
	var out []driver.HeldImage
	for _, s := range all[:min(len(all), maxHeld)] {
		got, err := d.inspectImage(ctx, s.ID)
		if errdefs.IsNotFound(err) {
			continue // it is just being removed
		}
		if err != nil {
			return nil, d.fail(err, "describe an image")
		}
		out = append(out, driver.HeldImage{ID: got.ID, Names: slices.Concat(got.RepoTags, got.RepoDigests), Layers: got.RootFS.Layers})
	}
	return out, nil
}

// Has reports whether an image is here.
func (d *Driver) Has(ctx context.Context, text, digest string) (bool, error) {
	ref, err := parseRef(text)
	if err != nil {
		return false, err
	}
	e, err := d.knowEngine(ctx)
	if err != nil {
		return false, err
	}
	switch _, err = d.findImage(ctx, e, ref, digest); mesh.KindOf(err) {
	case mesh.None:
		return true, nil
	case mesh.NotFound, mesh.Denied, mesh.Unsupported: // not here; another one; here, and nothing that would run
		return false, nil
	}
	return false, err
}

// Pullable asks the registry that the reference names.
func (d *Driver) Pullable(ctx context.Context, text string) (bool, error) {
	ref, err := parseRef(text)
	if err != nil || ref.name == nil || mesh.IsPushed(text) {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = d.cli.DistributionInspect(ctx, ref.name.String(), "")
	return err == nil, nil
}

// Forget takes the name of a pushed image away, and with its last name the image.
func (d *Driver) Forget(ctx context.Context, ref string) error {
	if _, _, ok := mesh.ParsePushed(ref); !ok {
		return mesh.Errorf(mesh.Invalid, "%q is not the name of a pushed image", clip(ref, 80))
	}
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	_, err := d.cli.ImageRemove(ctx, ref, api.RemoveOptions{}) // and no parent of it, which would be somebody's build
	switch {
	case err == nil || errdefs.IsNotFound(err):
		return nil
	case errdefs.IsConflict(err):
		return mesh.Errorf(mesh.Conflict, "the image is in use by a container").Because(err)
	}
	return d.fail(err, "remove the image")
}
