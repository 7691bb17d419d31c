package driver

import (
	"context"
	"io"

	"peercompute/pkg/oci"
)

// Images is implemented by drivers whose workloads run from images that one node can
// give to another.
type Images interface {
	// Platform is what images must be built for to run here, as GOOS and GOARCH name it.
	Platform(ctx context.Context) (os, arch string, err error)
	// Held lists the images that are here.
	Held(ctx context.Context) ([]HeldImage, error)
	// Has reports whether the image is here under this reference. With a digest, only
	// if it is that one.
	Has(ctx context.Context, ref, digest string) (bool, error)
	// Pullable reports whether a registry that can be reached from here has the image.
	Pullable(ctx context.Context, ref string) (bool, error)
	// Export describes an image that is here and writes its configuration and all
	// its layers into dir, each named by oci.FileName.
	Export(ctx context.Context, ref, dir string) (oci.Image, error)
	// Import makes an image out of parts, some of which may be here already. It is
	// that image, or an error. Idempotent.
	Import(ctx context.Context, i Import) error
	// Forget takes an image away that Import made. What other images need of it
	// stays. No error if it is not here.
	Forget(ctx context.Context, ref string) error
}

// HeldImage is an image that is here.
type HeldImage struct {
	ID     string
	Names  []string // with tag or digest, as people write them
	Layers []string // diff IDs, the lowest first
}

// Import is an image that is to be made.
type Import struct {
	Image oci.Image
	Ref   string // what it is called then
	Dir   string // holds the parts that are not here yet, named by oci.FileName; others may be added
}

// Builder is implemented by drivers that can build an image for the person at this
// machine. Nothing that a peer asks for may ever reach it.
type Builder interface {
	// Build builds from a directory, as a tar archive with a Dockerfile in it, writes
	// what a person wants to see to log, and returns the image ID.
	Build(ctx context.Context, dir io.Reader, o BuildOptions, log io.Writer) (id string, err error)
}

// BuildOptions are how a directory is built; zero = as a plain docker build does.
type BuildOptions struct {
	Dockerfile, Target string
	Args               map[string]string
}
