package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// Links says which symbolic links of an archive are made.
type Links int

// The kinds of links that are made. Others are skipped, and reported.
const (
	LinksBeneath Links = iota // those that stay beneath the directory, whatever follows them
	LinksAny                  // all: who follows them is kept inside otherwise
)

// Unpack makes files of a tar archive.
type Unpack struct {
	// As takes the place of the first element of each name; "" = as they are.
	As    string
	Links Links
	// MaxBytes is how many bytes the files may hold together; 0 = none.
	MaxBytes int64
	// Each, unless nil, is told now and then how much there is so far.
	Each func(Report)
}

// ErrTooLarge is an archive that holds more than it may.
var ErrTooLarge = errors.New("the archive holds more than it may")

// ErrBeneathLink is a name that leads through a symbolic link.
var ErrBeneathLink = errors.New("a name leads through a symbolic link")

// Into unpacks below root: files, directories and links, with their permissions for
// reading, writing and executing and their times, owned by who unpacks. Files take the
// place of those that are there; directories are merged.
func (u Unpack) Into(ctx context.Context, root *os.Root, r io.Reader) (Report, error) {
	b := unpacker{Unpack: u, root: root}
	in := tar.NewReader(reader{ctx, r})
	err := b.all(in)
	for i := len(b.closed) - 1; i >= 0; i-- { // directories that nothing could be made in
		err = errors.Join(err, root.Chmod(b.closed[i].name, b.closed[i].mode))
	}
	return b.report, err
}

type unpacker struct {
	Unpack
	root   *os.Root
	report Report
	closed []directory
	parent string // the last one that was looked at, which is no link
}

type directory struct {
	name string
	mode fs.FileMode
}

func (b *unpacker) all(in *tar.Reader) error {
	for {
		h, err := in.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if b.report.Files+b.report.Skipped >= MaxEntries {
			return fmt.Errorf("%w: over %d files", ErrTooLarge, MaxEntries)
		}
		if err := b.entry(h, in); err != nil {
			return err
		}
		if b.Each != nil {
			b.Each(b.report)
		}
	}
}

func (b *unpacker) entry(h *tar.Header, in io.Reader) error {
	slashed, err := b.name(h.Name)
	if err != nil {
		return err
	}
	name, err := filepath.Localize(slashed)
	if err != nil {
		return fmt.Errorf("this system cannot have a file called %.80q", slashed)
	}
	if slashed == "." {
		if h.Typeflag != tar.TypeDir {
			return fmt.Errorf("the archive has a file without a name")
		}
		return nil // the directory itself
	}
	if err := b.above(slashed); err != nil {
		return err
	}
	mode := fs.FileMode(h.Mode) & fs.ModePerm // neither set-user-ID nor its like
	switch h.Typeflag {
	case tar.TypeDir:
		err = b.mkdir(name, mode)
	case tar.TypeReg, '\x00': // the oldest form of a regular file
		err = b.file(name, mode, h, in)
	case tar.TypeSymlink:
		if b.Links != LinksAny && !beneath(slashed, h.Linkname) {
			b.report.skip(slashed, "a link that leads out")
			return nil
		}
		if err = b.clear(name); err == nil {
			err = b.root.Symlink(h.Linkname, name)
		}
	case tar.TypeXGlobalHeader:
		return nil
	default:
		b.report.skip(slashed, "neither file, directory nor symbolic link")
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot make %.200s: %w", slashed, cause(err))
	}
	b.report.Files++
	return nil
}

// above makes the directories that a name lies in, and refuses one that is a link:
// where links lead is judged by where they lie.
func (b *unpacker) above(name string) error {
	dir := path.Dir(name)
	if dir == "." || dir == b.parent {
		return nil
	}
	at := ""
	for part := range strings.SplitSeq(dir, "/") {
		at = path.Join(at, part)
		local := filepath.FromSlash(at)
		st, err := b.root.Lstat(local)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			err = b.root.Mkdir(local, 0o777)
		case err == nil && st.Mode()&fs.ModeSymlink != 0:
			return fmt.Errorf("%.200s: %w", at, ErrBeneathLink)
		}
		if err != nil {
			return fmt.Errorf("cannot make %.200s: %w", at, cause(err))
		}
	}
	b.parent = dir
	return nil
}

func (b *unpacker) mkdir(name string, mode fs.FileMode) error {
	err := b.root.Mkdir(name, mode|0o700)
	if errors.Is(err, fs.ErrExist) {
		if st, serr := b.root.Lstat(name); serr == nil && st.IsDir() {
			return nil
		}
		return err
	}
	if err == nil && mode&0o700 != 0o700 {
		b.closed = append(b.closed, directory{name, mode})
	}
	return err
}

// clear takes away what is in a file's or link's place; never a directory.
func (b *unpacker) clear(name string) error {
	st, err := b.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.IsDir():
		return errors.New("a directory is in its place")
	}
	return b.root.Remove(name)
}

func (b *unpacker) file(name string, mode fs.FileMode, h *tar.Header, in io.Reader) error {
	if h.Size > b.MaxBytes-b.report.Bytes {
		return fmt.Errorf("%w: over %d bytes", ErrTooLarge, b.MaxBytes)
	}
	if err := b.clear(name); err != nil {
		return err
	}
	f, err := b.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(counter{f, b}, in)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if !h.ModTime.IsZero() && h.ModTime.After(time.Unix(0, 0)) {
		return b.root.Chtimes(name, h.ModTime, h.ModTime)
	}
	return nil
}

// counter tells how far a long file has come.
type counter struct {
	f *os.File
	b *unpacker
}

func (c counter) Write(p []byte) (int, error) {
	n, err := c.f.Write(p)
	c.b.report.Bytes += int64(n)
	if c.b.Each != nil {
		c.b.Each(c.b.report)
	}
	return n, err
}

// beneath reports whether a link at name, in a directory that no link leads to, stays
// beneath the root whatever it and others of its kind lead through: it goes up at first
// only, and not above the root.
func beneath(name, to string) bool {
	if to == "" || path.IsAbs(to) || filepath.IsAbs(to) || strings.ContainsAny(to, "\\:\x00") || len(to) > MaxName {
		return false
	}
	up, down := 0, false
	for part := range strings.SplitSeq(to, "/") {
		switch {
		case part == "..":
			if down {
				return false
			}
			up++
		case part != "" && part != ".":
			down = true
		}
	}
	return up <= strings.Count(name, "/")
}

// Place says where a copy to a path goes: into the directory dir, under the name as,
// or with its own name if as is empty. stat looks a path up, links followed.
func Place(to string, stat func(string) (fs.FileInfo, error)) (dir, as string, err error) {
	st, err := stat(to)
	switch {
	case err == nil && st.IsDir():
		return to, "", nil
	case err == nil && strings.HasSuffix(to, "/"):
		return "", "", fmt.Errorf("%s is no directory", to)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", "", err
	}
	clean := path.Clean(to)
	dir, as = path.Dir(clean), path.Base(clean)
	if as == ".." || as == "/" || as == "." {
		return "", "", fs.ErrNotExist
	}
	if st, err = stat(dir); err != nil {
		return "", "", err
	}
	if !st.IsDir() {
		return "", "", fmt.Errorf("%s is no directory", dir)
	}
	return dir, as, nil
}
