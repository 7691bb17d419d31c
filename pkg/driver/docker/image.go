package docker

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	api "github.com/docker/docker/api/types/image"

	"peercompute/pkg/mesh"
)

// Prepare finds the image of w on the engine, or pulls it, and pins it for Start.
// The digest it returns is the image ID. A digest in the spec may be that ID or
// the digest of a manifest the image came by.
func (d *Driver) Prepare(ctx context.Context, w mesh.Workload, progress func(mesh.Progress)) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	ref, err := parseRef(w.Spec.Image)
	if err != nil {
		return "", err
	}
	if progress == nil {
		progress = func(mesh.Progress) {}
	}
	e, err := d.knowEngine(ctx)
	if err != nil {
		return "", err
	}
	img, err := d.findImage(ctx, e, ref, w.Spec.Digest, known(w)...)
	if err != nil {
		img, err = d.pullImage(ctx, e, ref, w.Spec.Digest, err, progress)
	}
	if err != nil {
		return "", err
	}
	d.mu.Lock()
	d.pinned[w.ID] = pinned{ref: w.Spec.Image, digest: w.Spec.Digest, image: img}
	d.mu.Unlock()
	return img.id, nil
}

// imageFor is the image that Prepare pinned for w. After a restart of peerd it is
// found again, and never pulled.
func (d *Driver) imageFor(ctx context.Context, e engine, w mesh.Workload) (image, error) {
	d.mu.Lock()
	p, ok := d.pinned[w.ID]
	d.mu.Unlock()
	if ok && p.ref == w.Spec.Image && p.digest == w.Spec.Digest {
		return p.image, nil
	}
	ref, err := parseRef(w.Spec.Image)
	if err != nil {
		return image{}, err
	}
	return d.findImage(ctx, e, ref, w.Spec.Digest, known(w)...)
}

// known is the ID of an image that w may have whatever its name means by now.
func known(w mesh.Workload) []string {
	if w.Again && mesh.ValidDigest(w.Spec.Digest) {
		return []string{w.Spec.Digest}
	}
	return nil
}

// imageRef is a reference in the forms that the engine takes.
type imageRef struct {
	text string          // for inspecting: "nginx:latest", or "sha256:…"
	name reference.Named // for pulling; nil = an image ID, which no registry knows
}

// parseRef reads an image reference. Nothing else may reach the engine's client:
// it puts the text into the path of a request as it is.
func parseRef(s string) (imageRef, error) {
	if mesh.ValidDigest(s) {
		return imageRef{text: s}, nil
	}
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return imageRef{}, mesh.Errorf(mesh.Invalid, "%q is not an image reference", clip(s, 80)).
			WithHint("a reference looks like nginx:1.27, registry.example.org/team/app:2 or sha256:<64 hex digits>").Because(err)
	}
	if digested, ok := named.(reference.Digested); ok {
		// The digest decides; a tag beside it is for people.
		named, err = reference.WithDigest(reference.TrimNamed(named), digested.Digest())
		if err != nil {
			return imageRef{}, mesh.Errorf(mesh.Invalid, "%q is not an image reference", clip(s, 80)).Because(err)
		}
	}
	named = reference.TagNameOnly(named)
	return imageRef{text: reference.FamiliarString(named), name: named}, nil
}

// withDigest is the same repository at this digest.
func (r imageRef) withDigest(digest string) (imageRef, bool) {
	if r.name == nil || digest == "" {
		return r, false
	}
	named, err := reference.ParseNormalizedNamed(reference.TrimNamed(r.name).String() + "@" + digest)
	if err != nil {
		return r, false
	}
	return imageRef{text: reference.FamiliarString(named), name: named}, true
}

// findImage looks for the image on the engine. It fails with mesh.NotFound if it is
// not there, and with mesh.Denied if it is, but is not what digest pins. also are
// further names to look under.
func (d *Driver) findImage(ctx context.Context, e engine, ref imageRef, digest string, also ...string) (image, error) {
	candidates := []string{ref.text}
	if pin, ok := ref.withDigest(digest); ok {
		candidates = append(candidates, pin.text)
	}
	candidates = append(candidates, also...)
	missing := mesh.Errorf(mesh.NotFound, "the image %s is not on this machine", ref.text)
	for _, text := range candidates {
		got, err := d.inspectImage(ctx, text)
		switch {
		case errdefs.IsNotFound(err):
		case err != nil:
			return image{}, d.fail(err, "look for the image")
		case digest == "" || isAt(got, digest) || d.isPushed(got, ref, digest):
			return usable(got, e, ref.text)
		default:
			missing = mesh.Errorf(mesh.Denied, "the image %s is not the one pinned by %s", ref.text, digest).
				WithHint("deploy without a digest, or with that of the image meant")
		}
	}
	return image{}, missing
}

func (d *Driver) inspectImage(ctx context.Context, text string) (api.InspectResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return d.cli.ImageInspect(ctx, text)
}

// isAt reports whether the image has this digest: its ID, or that of a manifest
// in a repository it was pulled from.
func isAt(got api.InspectResponse, digest string) bool {
	return got.ID == digest || slices.ContainsFunc(got.RepoDigests, func(r string) bool {
		_, at, ok := strings.Cut(r, "@")
		return ok && at == digest
	})
}

// isPushed reports whether the image is the pushed one that the reference and the digest
// name, under the name that an engine has for it which goes by manifests.
func (d *Driver) isPushed(got api.InspectResponse, ref imageRef, digest string) bool {
	_, id, ok := mesh.ParsePushed(ref.text)
	return ok && id == digest && d.manifest != nil && mesh.ValidDigest(got.ID) && got.ID == d.manifest(ref.text)
}

func foreign(what, os, arch string, e engine) error {
	return mesh.Errorf(mesh.Unsupported, "%s is for %s/%s; this machine runs linux/%s", what, os, arch, e.arch).
		WithHint("build or push it for linux/%s as well", e.arch)
}

// onlyPushed reports whether all names of an image say that a peer pushed it. Then
// it is that peer's, and is found by such a name alone, which admission judges.
func onlyPushed(names []string) bool {
	return len(names) > 0 && !slices.ContainsFunc(names, func(n string) bool { return !mesh.IsPushed(n) })
}

// usable refuses an image that this engine could not run.
func usable(got api.InspectResponse, e engine, ref string) (image, error) {
	if !mesh.ValidDigest(got.ID) {
		return image{}, mesh.Errorf(mesh.Unsupported, "the container engine names the image %s by something else than a SHA-256 digest", ref)
	}
	if got.Os != "" && got.Os != "linux" || got.Architecture != "" && got.Architecture != e.arch {
		return image{}, foreign("the image "+ref, got.Os, got.Architecture, e)
	}
	if onlyPushed(got.RepoTags) && !mesh.IsPushed(ref) {
		return image{}, mesh.Errorf(mesh.NotFound, "the image %s is not on this machine", ref)
	}
	img := image{id: got.ID}
	if got.Config != nil {
		img.volumes = slices.Sorted(maps.Keys(got.Config.Volumes))
	}
	return img, nil
}
