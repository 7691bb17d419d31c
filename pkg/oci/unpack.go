package oci

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"

	"peercompute/pkg/mesh"
)

// Unpack reads the archive that an engine saves images to, and keeps in dir, named
// by FileName, each file whose digest is wanted. Names in the archive decide
// nothing, so the form of the archive does not matter. limit bounds what is read,
// in bytes. It returns the sizes of the files that are in dir then.
func Unpack(r io.Reader, dir string, wanted map[string]bool, limit int64) (map[string]int64, error) {
	found := map[string]int64{}
	limited := &counter{r: io.LimitReader(r, limit+1)}
	in := tar.NewReader(limited)
	for {
		h, err := in.Next()
		if limited.n > limit {
			return nil, mesh.Errorf(mesh.TooLarge, "the image is larger than the %d MiB that are taken", limit>>20).WithRule("host.image-size")
		}
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, mesh.Errorf(mesh.Invalid, "what the container engine saved cannot be read").Because(err)
		}
		if h.Typeflag != tar.TypeReg || h.Size == 0 {
			continue
		}
		digest, err := keep(in, dir, wanted)
		if limited.n > limit {
			return nil, mesh.Errorf(mesh.TooLarge, "the image is larger than the %d MiB that are taken", limit>>20).WithRule("host.image-size")
		}
		if err != nil {
			return nil, err
		}
		if wanted[digest] {
			found[digest] = h.Size
		}
	}
}

// keep writes one file, and leaves it where it is wanted.
func keep(r io.Reader, dir string, wanted map[string]bool) (digest string, err error) {
	f, err := os.CreateTemp(dir, ".unpack-")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name())
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(sum, f), r)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	digest = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	if wanted[digest] {
		err = os.Rename(f.Name(), filepath.Join(dir, FileName(digest)))
	}
	return digest, err
}
