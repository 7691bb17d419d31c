package oci

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"peercompute/pkg/mesh"
)

// Wanted is what Unpack keeps.
type Wanted struct {
	Parts  map[string]bool  // files of these digests
	Config func(Image) bool // and configurations that describe such an image; nil = none
}

// Unpack reads the archive that an engine saves images to, and keeps in dir, named
// by FileName, each file that is wanted. Names in the archive decide nothing, so its form
// does not matter. A file that is compressed, as engines that keep images with containerd
// save layers, is what it holds. limit bounds what is read and what that holds, in
// bytes. It returns the sizes of the files that are in dir then.
func Unpack(r io.Reader, dir string, w Wanted, limit int64) (map[string]int64, error) {
	found := map[string]int64{}
	limited := &counter{r: io.LimitReader(r, limit+1)}
	in := tar.NewReader(limited)
	left := limit // of what is written
	for {
		h, err := in.Next()
		if limited.n > limit {
			return nil, tooLarge(limit)
		}
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, notReadable(err)
		}
		if h.Typeflag != tar.TypeReg || h.Size == 0 {
			continue
		}
		digest, size, err := keep(in, dir, w, left)
		if left -= size; left < 0 || limited.n > limit {
			return nil, tooLarge(limit)
		}
		if err != nil {
			return nil, err
		}
		if digest != "" {
			found[digest] = size
		}
	}
}

func tooLarge(limit int64) error {
	return mesh.Errorf(mesh.TooLarge, "the image is larger than the %d MiB that are taken", limit>>20).WithRule("host.image-size")
}

func notReadable(err error) error {
	return mesh.Errorf(mesh.Invalid, "what the container engine saved cannot be read").Because(err)
}

// keep writes one file, but no more than one byte over limit, and leaves it where it is
// wanted: then digest says what it is.
func keep(r io.Reader, dir string, w Wanted, limit int64) (digest string, size int64, err error) {
	f, err := os.CreateTemp(dir, ".unpack-")
	if err != nil {
		return "", 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	in := bufio.NewReaderSize(r, 64<<10)
	var plain io.Reader = in
	if head, _ := in.Peek(2); bytes.Equal(head, []byte{0x1f, 0x8b}) {
		if plain, err = gzip.NewReader(in); err != nil {
			return "", 0, notReadable(err)
		}
	}
	sum := sha256.New()
	if size, err = io.Copy(io.MultiWriter(sum, f), io.LimitReader(plain, limit+1)); err != nil {
		if full := (*fs.PathError)(nil); errors.As(err, &full) { // it is our own file
			return "", size, err
		}
		return "", size, notReadable(err)
	}
	digest = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	if !w.Parts[digest] && !w.config(f, size) {
		return "", size, nil
	}
	return digest, size, errors.Join(f.Close(), os.Rename(f.Name(), filepath.Join(dir, FileName(digest))))
}

// config reports whether a file is a configuration that is wanted.
func (w Wanted) config(f io.ReaderAt, size int64) bool {
	first := make([]byte, 1)
	if w.Config == nil || size > MaxConfig {
		return false
	}
	if _, err := f.ReadAt(first, 0); err != nil || first[0] != '{' {
		return false
	}
	b, err := io.ReadAll(io.NewSectionReader(f, 0, size))
	if err != nil {
		return false
	}
	img, err := Describe(b)
	return err == nil && w.Config(img)
}
