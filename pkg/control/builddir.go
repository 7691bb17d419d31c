package control

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"peercompute/pkg/mesh"
)

// Dockerfile is what makes a directory one that an image is built from.
const Dockerfile = "Dockerfile"

// Build is a directory of the caller's that an image is built from.
type Build struct {
	BuildOptions
	Dir    string `json:"dir"`              // absolute
	Inline string `json:"inline,omitempty"` // text of the Dockerfile, instead of one in the directory
}

// inlineFile is what a Dockerfile is called that is not in the directory.
const inlineFile = ".peercompute.Dockerfile"

// BuildDir builds a directory of the caller's on this machine: what its .dockerignore
// leaves of it is sent to peerd, which may not read it itself.
func (c *Client) BuildDir(ctx context.Context, b Build, on func(ImageEvent)) (Image, error) {
	if b.Inline != "" {
		b.Dockerfile = inlineFile
	}
	r, w := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		err := packDir(w, b)
		w.CloseWithError(err)
		packed <- err
	}()
	img, err := c.BuildImage(ctx, r, b.BuildOptions, on)
	r.Close()
	if perr := <-packed; perr != nil && !errors.Is(perr, io.ErrClosedPipe) {
		return Image{}, perr
	}
	return img, err
}

// packDir writes a directory as the archive that engines build from: without what
// its .dockerignore names, and without whose files they are.
func packDir(w io.Writer, b Build) error {
	dir, dockerfile := b.Dir, filepath.ToSlash(cmp.Or(b.Dockerfile, Dockerfile))
	ignore, err := readIgnore(dir)
	if err != nil {
		return err
	}
	out := tar.NewWriter(w)
	if b.Inline != "" {
		if err := out.WriteHeader(&tar.Header{Name: inlineFile, Mode: 0o644, Size: int64(len(b.Inline))}); err != nil {
			return err
		}
		if _, err := io.WriteString(out, b.Inline); err != nil {
			return err
		}
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil || rel == "." {
			return err
		}
		if filepath.ToSlash(rel) != dockerfile && rel != ignoreFile {
			skip, err := ignore.MatchesOrParentMatches(rel)
			if err != nil {
				return err
			}
			if skip && d.IsDir() && !ignore.Exclusions() {
				return filepath.SkipDir
			}
			if skip {
				return nil
			}
		}
		return packFile(out, path, filepath.ToSlash(rel), d)
	})
	return errors.Join(err, out.Close())
}

func packFile(out *tar.Writer, path, name string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	link := ""
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		if link, err = os.Readlink(path); err != nil {
			return err
		}
	case !info.IsDir() && !info.Mode().IsRegular():
		return nil // sockets, pipes and devices are nothing to build from
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	h.Name = name
	if info.IsDir() {
		h.Name += "/"
	}
	h.Uid, h.Gid, h.Uname, h.Gname = 0, 0, "", ""
	if err := out.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyN(out, f, h.Size)
	if errors.Is(err, io.EOF) {
		return mesh.Errorf(mesh.Conflict, "%s became shorter while it was read", path)
	}
	return err
}

const ignoreFile = ".dockerignore"

func readIgnore(dir string) (*patternmatcher.PatternMatcher, error) {
	var patterns []string
	f, err := os.Open(filepath.Join(dir, ignoreFile))
	if err == nil {
		defer f.Close()
		patterns, err = ignorefile.ReadAll(f)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	m, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, mesh.Errorf(mesh.Invalid, "cannot understand %s: %s", filepath.Join(dir, ignoreFile), err)
	}
	return m, nil
}
