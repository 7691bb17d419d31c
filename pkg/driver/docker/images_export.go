package docker

import (
	"context"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"

	"peercompute/pkg/mesh"
	"peercompute/pkg/oci"
)

// Export saves an image of the engine into dir, part by part.
func (d *Driver) Export(ctx context.Context, text, dir string) (oci.Image, error) {
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	ref, err := parseRef(text)
	if err != nil {
		return oci.Image{}, err
	}
	got, err := d.inspectImage(ctx, ref.text)
	if errdefs.IsNotFound(err) {
		return oci.Image{}, mesh.Errorf(mesh.NotFound, "the image %s is not on this machine", ref.text).
			WithHint("build or pull it here first; list what is here with: docker image ls")
	}
	if err != nil {
		return oci.Image{}, d.fail(err, "look for the image")
	}
	if got.Size > d.maxImage {
		return oci.Image{}, d.tooLarge(ref)
	}
	wanted := oci.Wanted{Parts: map[string]bool{}}
	for _, l := range got.RootFS.Layers {
		wanted.Parts[l] = true
	}
	// Not every engine calls an image by its configuration, but each says what is in it.
	var config string
	wanted.Config = func(i oci.Image) bool {
		same := i.OS == got.Os && i.Arch == got.Architecture &&
			slices.EqualFunc(i.Layers, got.RootFS.Layers, func(l oci.Layer, digest string) bool { return l.Digest == digest })
		if same && config != got.ID {
			config = i.ID
		}
		return same
	}
	sizes, err := d.unpack(ctx, got.ID, dir, wanted)
	if err != nil {
		return oci.Image{}, err
	}
	if config == "" {
		return oci.Image{}, notSaved(ref)
	}
	b, err := os.ReadFile(filepath.Join(dir, oci.FileName(config)))
	if err != nil {
		return oci.Image{}, err
	}
	img, err := oci.Describe(b)
	if err != nil {
		return oci.Image{}, err
	}
	for i, l := range img.Layers {
		if img.Layers[i].Size = sizes[l.Digest]; img.Layers[i].Size == 0 {
			return oci.Image{}, notSaved(ref)
		}
	}
	return img, nil
}

func notSaved(ref imageRef) error {
	return mesh.Errorf(mesh.Unsupported, "the container engine does not save all of %s in a form that is known here", ref.text).
		WithHint("its layers may be compressed in another way than gzip, or some be missing; push the image to a registry instead")
}

// unpack saves an image and keeps those of its parts in dir that are wanted.
func (d *Driver) unpack(ctx context.Context, id, dir string, wanted oci.Wanted) (map[string]int64, error) {
	saved, err := d.cli.ImageSave(ctx, []string{id})
	if err != nil {
		return nil, d.fail(err, "save the image")
	}
	defer saved.Close()
	sizes, err := oci.Unpack(saved, dir, wanted, d.maxImage+tarSlack)
	if err != nil && ctx.Err() != nil {
		return nil, d.fail(ctx.Err(), "save the image")
	}
	return sizes, err
}

// tarSlack is what a saved image may be larger than the image: headers, padding, manifests.
const tarSlack = 64 << 20
