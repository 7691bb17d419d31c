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
	"strings"
)

// Pack writes trees as tar.
type Pack struct {
	// As is the name of the tree in the archive; "." = its contents without one.
	As string
	// Enter, unless nil, says why a directory that was opened is not to be read.
	Enter func(dir *os.File) error
	// Each, unless nil, is told after each file how much there is so far.
	Each func(Report)
	// Whole makes a faithful copy or none: files with several names keep them, and what
	// cannot be read is an error. Only what is neither file, directory nor link is skipped.
	Whole bool
	// MaxBytes is how many bytes the files of a whole copy may have together, holes
	// counted; of another there is no bound.
	MaxBytes int64
}

// batch is how many names of a directory are read at once.
const batch = 256

// Dir writes a directory with all beneath it. What cannot be read, and what is neither
// a file, a directory nor a symbolic link, is skipped and reported.
func (p Pack) Dir(ctx context.Context, w io.Writer, root *os.Root) (Report, error) {
	b := packer{Pack: p, ctx: ctx, root: root, w: tar.NewWriter(w), links: map[uint64]string{}}
	if err := b.dir(".", 0); err != nil {
		return b.report, err
	}
	return b.report, b.w.Close()
}

// File writes one regular file that is open.
func (p Pack) File(ctx context.Context, w io.Writer, f *os.File) (Report, error) {
	b := packer{Pack: p, ctx: ctx, w: tar.NewWriter(w)}
	if err := b.file(".", f); err != nil {
		return b.report, err
	}
	return b.report, b.w.Close()
}

type packer struct {
	Pack
	ctx    context.Context // of one call of Dir or File
	root   *os.Root
	w      *tar.Writer
	report Report
	links  map[uint64]string // of a whole copy, files with several names: inode → the first
}

// called is the name in the archive of what is called name in the tree.
func (b *packer) called(name string) string {
	switch {
	case b.As != ".":
		return path.Join(b.As, name)
	case name == ".":
		return "."
	}
	return "./" + name // so that the first element is not taken for the tree's name
}

func (b *packer) header(name string, typ byte, st fs.FileInfo) *tar.Header {
	// By hand: the package's own would look the owner up among this machine's users.
	return &tar.Header{Name: b.called(name), Typeflag: typ, Mode: int64(st.Mode().Perm()), ModTime: st.ModTime(), Format: tar.FormatPAX}
}

func (b *packer) wrote(n int64) {
	b.report.Files++
	b.report.Bytes += n
	if b.Each != nil {
		b.Each(b.report)
	}
}

func (b *packer) dir(name string, depth int) error {
	if depth > MaxDepth || len(name) > MaxName {
		if b.Whole {
			return fmt.Errorf("%w: %.200s is too deep", ErrTooLarge, name)
		}
		b.report.skip(name, "too deep")
		return nil
	}
	d, err := b.root.OpenFile(name, readFlags, 0)
	if err != nil {
		return b.unread(name, err)
	}
	defer d.Close()
	st, err := d.Stat()
	if err != nil || !st.IsDir() {
		return b.unread(name, errors.Join(err, errChanged))
	}
	if b.Enter != nil {
		if err := b.Enter(d); err != nil {
			b.report.skip(name, err.Error())
			return nil
		}
	}
	h := b.header(name, tar.TypeDir, st)
	h.Name += "/"
	if err := b.w.WriteHeader(h); err != nil {
		return err
	}
	b.wrote(0)
	for {
		entries, err := d.ReadDir(batch)
		for _, e := range entries {
			if err := b.entry(path.Join(name, e.Name()), depth+1); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return b.unread(name, err)
		}
	}
}

var errChanged = errors.New("it changed meanwhile")

func (b *packer) entry(name string, depth int) error {
	if err := b.ctx.Err(); err != nil {
		return err
	}
	st, err := b.root.Lstat(name)
	if err != nil {
		return b.unread(name, err)
	}
	switch {
	case st.IsDir():
		return b.dir(name, depth)
	case st.Mode()&fs.ModeSymlink != 0:
		to, err := b.root.Readlink(name)
		if err != nil {
			return b.unread(name, err)
		}
		h := b.header(name, tar.TypeSymlink, st)
		h.Linkname = to
		if err := b.w.WriteHeader(h); err != nil {
			return err
		}
		b.wrote(0)
		return nil
	case st.Mode().IsRegular():
		if again, err := b.again(name, st); again || err != nil {
			return err
		}
		f, err := b.root.OpenFile(name, readFlags, 0)
		if err != nil {
			return b.unread(name, err)
		}
		defer f.Close()
		return b.file(name, f)
	}
	b.report.skip(name, "neither file, directory nor link")
	return nil
}

// again writes a further name of a file that is in a whole copy already.
func (b *packer) again(name string, st fs.FileInfo) (bool, error) {
	inode, several := linked(st)
	if !b.Whole || !several {
		return false, nil
	}
	first, known := b.links[inode]
	if !known {
		b.links[inode] = name
		return false, nil
	}
	h := b.header(name, tar.TypeLink, st)
	h.Linkname = b.called(first)
	if err := b.w.WriteHeader(h); err != nil {
		return true, err
	}
	b.wrote(0)
	return true, nil
}

func (b *packer) file(name string, f *os.File) error {
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() { // a pipe by now, for example
		return b.unread(name, errors.Join(err, errChanged))
	}
	h := b.header(name, tar.TypeReg, st)
	h.Size = st.Size()
	if b.Whole && h.Size > b.MaxBytes-b.report.Bytes {
		return fmt.Errorf("%w: over %d bytes", ErrTooLarge, b.MaxBytes)
	}
	if err := b.w.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.CopyN(b.w, reader{b.ctx, f}, h.Size) // what is appended meanwhile stays out
	if err != nil {
		return fmt.Errorf("cannot copy %s, of which %d of %d bytes were there: %w", b.called(name), n, h.Size, cause(err))
	}
	b.wrote(n)
	return nil
}

// unread skips what cannot be read, unless it is what was asked for.
func (b *packer) unread(name string, err error) error {
	if name == "." {
		return err
	}
	if b.Whole {
		return fmt.Errorf("cannot read %.200s: %w", name, cause(err))
	}
	b.report.skip(name, cause(err).Error())
	return nil
}

// cause is an error without the path that the packages beneath know it by.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	if err == io.EOF {
		return errors.New("it became shorter meanwhile")
	}
	return err
}

// reader ends with a context.
type reader struct {
	ctx context.Context // of one copy
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// Base is the name under which a path is archived: its last element, or "." where the
// path ends in one, which stands for its contents.
func Base(p string) string {
	if p == "" || p == "." || strings.HasSuffix(p, "/.") {
		return "."
	}
	if base := path.Base(path.Clean(p)); base != "/" && base != ".." {
		return base
	}
	return "."
}
