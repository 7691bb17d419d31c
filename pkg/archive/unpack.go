package archive

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
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
	// Whole takes the archive for all that is to be in an empty directory: hard links are
	// made too, permissions and times are set as they are in it, and nothing may be named
	// twice. After an error what is there is of no use.
	Whole bool
	// MaxEntries bounds the entries of an archive; 0 = MaxEntries.
	MaxEntries int64
	// Owner is whose all becomes, as user and group; 0 = who unpacks.
	Owner int
}

// ErrMalformed is an archive that nobody should have made.
var ErrMalformed = errors.New("the archive is malformed")

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
	for _, d := range slices.Backward(b.later) {
		if derr := root.Chmod(d.name, d.mode); derr != nil {
			err = errors.Join(err, derr)
		}
		if u.Whole && err == nil {
			err = root.Chtimes(d.name, d.time, d.time)
		}
	}
	return b.report, err
}

type unpacker struct {
	Unpack
	root   *os.Root
	report Report
	later  []directory // whose permissions are set at the end, so that files can be made in them
	parent string      // the last one that was looked at, which is no link
}

type directory struct {
	name string
	mode fs.FileMode
	time time.Time
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
		if most := cmp.Or(b.MaxEntries, MaxEntries); b.report.Files+b.report.Skipped >= most {
			return fmt.Errorf("%w: over %d files", ErrTooLarge, most)
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
	name := slashed
	if !b.Whole {
		name, err = filepath.Localize(slashed)
	}
	if err != nil {
		return fmt.Errorf("this system cannot have a file called %.80q", slashed)
	}
	if slashed == "." {
		if h.Typeflag != tar.TypeDir {
			return fmt.Errorf("%w: it has a file without a name", ErrMalformed)
		}
		return nil // the directory itself
	}
	if err := b.above(slashed); err != nil {
		return err
	}
	mode := fs.FileMode(h.Mode) & fs.ModePerm // neither set-user-ID nor its like
	switch h.Typeflag {
	case tar.TypeDir:
		err = b.mkdir(name, mode, h.ModTime)
	case tar.TypeReg, tar.TypeGNUSparse, '\x00': // the oldest form of a regular file
		err = b.file(name, mode, h, in)
	case tar.TypeLink:
		if !b.Whole {
			b.report.skip(slashed, "a hard link")
			return nil
		}
		var to string
		if to, err = b.name(h.Linkname); err == nil {
			err = b.root.Link(to, name)
		}
	case tar.TypeSymlink:
		if b.Links != LinksAny && !beneath(slashed, h.Linkname) {
			b.report.skip(slashed, "a link that leads out")
			return nil
		}
		if err = b.clear(name); err == nil {
			err = b.root.Symlink(h.Linkname, name)
		}
		if err == nil {
			err = b.own(name)
		}
	case tar.TypeXGlobalHeader:
		return nil
	default:
		b.report.skip(slashed, "neither file, directory nor symbolic link")
		return nil
	}
	if b.Whole && errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: it names %.80q twice", ErrMalformed, slashed)
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
			if err = b.root.Mkdir(local, b.most(0o777)); err == nil {
				err = b.own(local)
			}
		case err == nil && !st.IsDir():
			if st.Mode()&fs.ModeSymlink != 0 {
				return fmt.Errorf("%.200s: %w", at, ErrBeneathLink)
			}
			return fmt.Errorf("%w: it puts something below %.80q, which is no directory", ErrMalformed, at)
		}
		if err != nil {
			return fmt.Errorf("cannot make %.200s: %w", at, cause(err))
		}
	}
	b.parent = dir
	return nil
}

// most is what a file or directory may be made with: all of a whole copy is private until
// it is as it should be.
func (b *unpacker) most(mode fs.FileMode) fs.FileMode {
	if b.Whole {
		return mode & 0o700
	}
	return mode
}

// own gives what was made to its owner.
func (b *unpacker) own(name string) error {
	if b.Owner == 0 {
		return nil
	}
	return b.root.Lchown(name, b.Owner, b.Owner)
}

func (b *unpacker) mkdir(name string, mode fs.FileMode, at time.Time) error {
	err := b.root.Mkdir(name, b.most(mode|0o700))
	there := errors.Is(err, fs.ErrExist)
	if there {
		if st, serr := b.root.Lstat(name); serr != nil || !st.IsDir() {
			return err
		}
		err = nil
	} else if err == nil {
		err = b.own(name)
	}
	if err == nil && (b.Whole || !there && mode&0o700 != 0o700) {
		b.later = append(b.later, directory{name, mode, at})
	}
	return err
}

// clear takes away what is in a file's or link's place; never a directory.
func (b *unpacker) clear(name string) error {
	if b.Whole {
		return nil // nothing may be
	}
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
	f, err := b.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, b.most(mode))
	if err != nil {
		return err
	}
	_, err = io.Copy(counter{f, b}, in)
	if err == nil {
		err = b.own(name)
	}
	if err == nil && b.Whole {
		err = f.Chmod(mode)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if b.Whole {
		return b.root.Chtimes(name, h.ModTime, h.ModTime)
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
