package docker

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
	api "github.com/docker/docker/api/types/image"

	"peercompute/pkg/driver"
	"peercompute/pkg/driver/docker/internal/registry"
	"peercompute/pkg/mesh"
	"peercompute/pkg/oci"
)

// Import has the engine pull an image, by its digest, from a registry on loopback
// that lives as long as the pull.
func (d *Driver) Import(ctx context.Context, in driver.Import) error {
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	if _, id, ok := mesh.ParsePushed(in.Ref); !ok || id != in.Image.ID {
		return mesh.Errorf(mesh.Internal, "an image cannot be imported as %s", clip(in.Ref, 160))
	}
	if err := in.Image.Check(d.maxImage); err != nil {
		return err
	}
	e, err := d.knowEngine(ctx)
	if err != nil {
		return err
	}
	if in.Image.OS != "linux" || in.Image.Arch != e.arch {
		return foreign("the image", in.Image.OS, in.Image.Arch, e)
	}
	// The engine may have this very image, under a name that its owner gave it.
	if got, err := d.inspectImage(ctx, in.Image.ID); err == nil && got.ID == in.Image.ID {
		return d.tag(ctx, got.ID, in.Ref)
	} else if err != nil && !errdefs.IsNotFound(err) {
		return d.fail(err, "look for the image")
	}
	_, manifest, err := in.Image.Manifest()
	if err != nil {
		return err
	}
	parts := &parts{d: d, in: in}
	reg, err := registry.Serve(in.Image, parts.open)
	if err != nil {
		return mesh.Errorf(mesh.Internal, "cannot serve the image to the container engine").Because(err)
	}
	defer reg.Close()
	from, err := parseRef(reg.Ref())
	if err != nil {
		return err
	}
	if err := d.pull(ctx, from, func(mesh.Progress) {}); err != nil {
		if parts.err != nil {
			return parts.err
		}
		return mesh.Errorf(mesh.KindOf(err), "the container engine did not take the image").Because(err)
	}
	// Its name is that of a registry which is gone in a moment.
	defer func() {
		_, _ = d.cli.ImageRemove(context.WithoutCancel(ctx), from.text, api.RemoveOptions{})
	}()
	got, err := d.inspectImage(ctx, from.text)
	if err != nil {
		return d.fail(err, "look for the image")
	}
	if got.ID != in.Image.ID && got.ID != manifest {
		return mesh.Errorf(mesh.Unsupported, "the container engine calls the image %s, which is neither its configuration nor its manifest", clip(got.ID, 80))
	}
	return d.tag(ctx, got.ID, in.Ref)
}

func (d *Driver) tag(ctx context.Context, id, ref string) error {
	if err := d.cli.ImageTag(ctx, id, ref); err != nil {
		return d.fail(err, "name the image")
	}
	return nil
}

// parts is what the registry of one import serves: what was sent, and layers that
// the engine has, which it does not recognise where they came another way.
type parts struct {
	d  *Driver
	in driver.Import

	mu  sync.Mutex
	err error // why a layer was not there
}

func (p *parts) open(ctx context.Context, digest string) (*os.File, error) {
	file := filepath.Join(p.in.Dir, oci.FileName(digest))
	if f, err := os.Open(file); err == nil {
		return f, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	f, err := os.Open(file)
	if err == nil {
		return f, nil
	}
	if err := p.fetch(ctx, digest); err != nil {
		p.err = err
		return nil, err
	}
	return os.Open(file)
}

// fetch takes layers out of an image of the engine that has this one.
func (p *parts) fetch(ctx context.Context, digest string) error {
	held, err := p.d.Held(ctx)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(held, func(h driver.HeldImage) bool { return slices.Contains(h.Layers, digest) })
	if at < 0 {
		return mesh.Errorf(mesh.NotFound, "layer %s is no longer on this machine", digest).WithHint("push the image again, which sends it along")
	}
	wanted := oci.Wanted{Parts: map[string]bool{}}
	for _, l := range p.in.Image.Layers {
		if _, err := os.Stat(filepath.Join(p.in.Dir, oci.FileName(l.Digest))); err != nil {
			wanted.Parts[l.Digest] = true
		}
	}
	found, err := p.d.unpack(ctx, held[at].ID, p.in.Dir, wanted)
	if err == nil && found[digest] == 0 {
		err = mesh.Errorf(mesh.Unsupported, "the container engine does not give out layer %s", digest)
	}
	return err
}
