package oci

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"path"
	"strings"

	"peercompute/pkg/mesh"
)

// maxEntries bounds what one layer may hold, so that unpacking it cannot use up the
// inodes of a disk.
const maxEntries = 1 << 20

// CheckLayer reads an archive to its end and requires that it is the layer, and that
// nothing in it points out of the directory that an engine unpacks it to.
func CheckLayer(r io.Reader, want Layer) error {
	bad := func(format string, args ...any) error {
		return mesh.Errorf(mesh.Forged, format, args...).WithRule("image.layer").WithHint("build the image anew and push it again")
	}
	sum := sha256.New()
	counted := &counter{r: io.TeeReader(io.LimitReader(r, want.Size+1), sum)}
	in := tar.NewReader(counted)
	refused := error(nil)
	for n := 0; ; n++ {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			refused = bad("layer %s is not an archive that can be read", want.Digest)
			break
		}
		if why := outside(h); why != "" {
			refused = bad("layer %s holds %s", want.Digest, why)
			break
		}
		if n >= maxEntries {
			refused = bad("layer %s holds more than %d files", want.Digest, maxEntries)
			break
		}
	}
	if _, err := io.Copy(io.Discard, counted); err != nil {
		return err
	}
	// The digest first: it says who is to blame.
	if counted.n != want.Size || "sha256:"+hex.EncodeToString(sum.Sum(nil)) != want.Digest {
		return mesh.Errorf(mesh.Forged, "layer %s has other bytes than its digest says", want.Digest).WithRule("image.digest")
	}
	return refused
}

// outside says what about an entry would reach beyond the layer; empty = nothing.
func outside(h *tar.Header) string {
	if escapes(h.Name) {
		return "a file outside of it"
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo, tar.TypeXGlobalHeader:
	case tar.TypeLink: // a symbolic one is read inside the container only
		if escapes(h.Linkname) {
			return "a link to a file outside of it"
		}
	default:
		return "an entry of an unknown kind"
	}
	base := path.Base(h.Name)
	if gone, ok := strings.CutPrefix(base, ".wh."); ok {
		switch {
		case gone == ".wh..opq" || gone == ".wh.plnk" || gone == ".wh.aufs": // all of a directory; marks that engines skip
		case gone == "" || gone == "." || gone == ".." || strings.HasPrefix(gone, ".wh."):
			return "a whiteout of a file outside of it"
		}
	}
	return ""
}

// escapes reports whether a name in an archive leaves its root on the way.
func escapes(name string) bool {
	if strings.ContainsRune(name, 0) || len(name) > 4096 {
		return true
	}
	clean := path.Clean(strings.TrimLeft(name, "/"))
	return clean == ".." || strings.HasPrefix(clean, "../")
}

type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
