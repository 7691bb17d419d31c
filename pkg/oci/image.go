// Package oci describes container images as they travel between peers, and judges
// what comes from one: a description, a configuration, the archives of layers. A
// layer travels as the plain archive that its diff ID names, so one digest is what
// an engine calls it, what a registry serves it by, and what it is compared by. It
// knows no engine and no network.
package oci

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"peercompute/pkg/mesh"
)

// Bounds of an image that is pushed.
const (
	MaxLayers = 125     // as many as overlay2 stacks
	MaxConfig = 1 << 20 // bytes
)

// Layer is one layer: the digest ("sha256:…") and size in bytes of its uncompressed archive.
type Layer struct {
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
}

// Image is what identifies an image before any byte of it is there.
type Image struct {
	ID         string  `json:"id"`          // the digest of its configuration
	ConfigSize int64   `json:"config_size"` // bytes
	OS         string  `json:"os"`
	Arch       string  `json:"arch"`   // as GOARCH has it
	Layers     []Layer `json:"layers"` // the lowest first; one may come twice
}

// Parts are the configuration and the layers, each once, in the order in which they
// are sent.
func (i Image) Parts() []Layer {
	out := []Layer{{Digest: i.ID, Size: i.ConfigSize}}
	for _, l := range i.Layers {
		if !slices.ContainsFunc(out, func(p Layer) bool { return p.Digest == l.Digest }) {
			out = append(out, l)
		}
	}
	return out
}

// Size is the sum of its parts in bytes. It does not overflow for what Check passes.
func (i Image) Size() (n int64) {
	for _, p := range i.Parts() {
		n += p.Size
	}
	return n
}

// Check judges the form of a description from a peer; limit bounds the image in bytes.
func (i Image) Check(limit int64) error {
	switch {
	case !mesh.ValidDigest(i.ID):
		return mesh.Errorf(mesh.Invalid, "the image is not named by a digest")
	case i.ConfigSize <= 0 || i.ConfigSize > MaxConfig:
		return mesh.Errorf(mesh.TooLarge, "a configuration of %d bytes; the most is %d KiB", i.ConfigSize, MaxConfig>>10).WithRule("host.image-size")
	case len(i.Layers) > MaxLayers:
		return mesh.Errorf(mesh.TooLarge, "an image of %d layers; the most is %d", len(i.Layers), MaxLayers).
			WithRule("host.image-layers").WithHint("build it in fewer steps")
	case !plain(i.OS) || !plain(i.Arch):
		return mesh.Errorf(mesh.Invalid, "the image does not say for what it was built")
	}
	sizes := map[string]int64{i.ID: i.ConfigSize}
	left := limit - i.ConfigSize
	for _, l := range i.Layers {
		before, twice := sizes[l.Digest]
		switch {
		case !mesh.ValidDigest(l.Digest):
			return mesh.Errorf(mesh.Invalid, "a layer is not named by a digest")
		case l.Size <= 0 || twice && before != l.Size:
			return mesh.Errorf(mesh.Invalid, "layer %s cannot be of %d bytes", l.Digest, l.Size)
		case !twice:
			if left -= l.Size; left < 0 {
				return mesh.Errorf(mesh.TooLarge, "the image is larger than the %d MiB that are taken", limit>>20).WithRule("host.image-size")
			}
			sizes[l.Digest] = l.Size
		}
	}
	return nil
}

// plain is a word as an operating system or architecture is called.
func plain(s string) bool {
	return s != "" && len(s) <= 32 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

// CheckConfig reads a configuration and requires that it is the one that the
// description promised. Layers and sizes may be missing in what is described.
func CheckConfig(config []byte, i Image) error {
	read, err := Describe(config)
	if err != nil {
		return err
	}
	differs := read.ID != i.ID || read.ConfigSize != i.ConfigSize || read.OS != i.OS || read.Arch != i.Arch ||
		!slices.EqualFunc(read.Layers, i.Layers, func(a, b Layer) bool { return a.Digest == b.Digest })
	if differs {
		return mesh.Errorf(mesh.Forged, "the image's configuration is not what was announced").WithRule("image.config")
	}
	return nil
}

// Describe reads a configuration. It leaves out the sizes of the layers, which it
// does not say.
func Describe(config []byte) (Image, error) {
	if len(config) == 0 || len(config) > MaxConfig {
		return Image{}, mesh.Errorf(mesh.TooLarge, "a configuration of %d bytes; the most is %d KiB", len(config), MaxConfig>>10)
	}
	file, err := v1.ParseConfigFile(bytes.NewReader(config))
	if err != nil {
		return Image{}, mesh.Errorf(mesh.Invalid, "the image's configuration cannot be read").Because(err)
	}
	if file.RootFS.Type != "layers" {
		return Image{}, mesh.Errorf(mesh.Invalid, "the image's file system is not made of layers")
	}
	if len(file.RootFS.DiffIDs) > MaxLayers {
		return Image{}, mesh.Errorf(mesh.TooLarge, "an image of %d layers; the most is %d", len(file.RootFS.DiffIDs), MaxLayers)
	}
	out := Image{ID: DigestOf(config), ConfigSize: int64(len(config)), OS: file.OS, Arch: file.Architecture}
	for _, d := range file.RootFS.DiffIDs {
		if !mesh.ValidDigest(d.String()) {
			return Image{}, mesh.Errorf(mesh.Invalid, "a layer is not named by a SHA-256 digest")
		}
		out.Layers = append(out.Layers, Layer{Digest: d.String()})
	}
	return out, nil
}

// Manifest is the one manifest that an image is served by, and its digest. It
// follows from the description: no peer's manifest is ever read.
func (i Image) Manifest() (manifest []byte, digest string, err error) {
	part := func(kind types.MediaType, digest string, size int64) (v1.Descriptor, error) {
		h, err := v1.NewHash(digest)
		return v1.Descriptor{MediaType: kind, Digest: h, Size: size}, err
	}
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Layers: []v1.Descriptor{}}
	if m.Config, err = part(types.OCIConfigJSON, i.ID, i.ConfigSize); err != nil {
		return nil, "", fmt.Errorf("cannot name the configuration: %w", err)
	}
	for _, l := range i.Layers {
		d, err := part(types.OCIUncompressedLayer, l.Digest, l.Size)
		if err != nil {
			return nil, "", fmt.Errorf("cannot name a layer: %w", err)
		}
		m.Layers = append(m.Layers, d)
	}
	manifest, err = json.Marshal(m)
	return manifest, DigestOf(manifest), err
}

// ManifestType is the media type of what Manifest makes.
const ManifestType = string(types.OCIManifestSchema1)

// DigestOf is the digest of b, "sha256:…".
func DigestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// FileName is what a part is called on disk.
func FileName(digest string) string { return strings.TrimPrefix(digest, "sha256:") }
