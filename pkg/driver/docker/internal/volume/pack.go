package volume

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"peercompute/pkg/mesh"
)

// This file is the archive of a volume: a tar file under gzip, which other programs
// read too. Only directories, files, hard and symbolic links are in it, with their
// permissions and times. Who owns a file is not: all of a volume is one user's.

// Bounds of an archive, so that neither a volume nor an archive keeps peerd busy for ever.
const (
	maxDepth   = 128      // directories within each other
	maxEntries = 1 << 24  // a file system of 1 TiB has as many
	slack      = 64 << 20 // bytes that an archive may have beside what fits into the volume
	thin       = 8        // a volume may hold files of so many times its size, most of them holes
)

// Summary is what an archive holds.
type Summary struct {
	Entries int
	Bytes   int64 // of its files
	Left    int   // entries that were left out: sockets, pipes and devices
}

// Backup writes the archive of a volume that is not in use.
func (s *Store) Backup(ctx context.Context, id mesh.VolumeID, w io.Writer) (sum Summary, err error) {
	release, err := s.take(ctx, id)
	if err != nil {
		return sum, err
	}
	defer release()
	st, err := os.Stat(s.path(id))
	if err != nil {
		return sum, fmt.Errorf("cannot find a volume: %w", err)
	}
	t, err := open(s.path(id), readOnly)
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	return pack(ctx, t.root, w, thin*st.Size())
}

// Restore fills a volume, which is empty, with the files of an archive. They become
// owner's. After an error the volume is to be removed.
func (s *Store) Restore(ctx context.Context, id mesh.VolumeID, owner uint32, r io.Reader) (sum Summary, err error) {
	release, err := s.take(ctx, id)
	if err != nil {
		return sum, err
	}
	defer release()
	st, err := os.Stat(s.path(id))
	if err != nil {
		return sum, fmt.Errorf("cannot find a volume: %w", err)
	}
	t, err := open(s.path(id), writable)
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	if sum, err = unpack(ctx, t.root, r, int(owner), thin*st.Size()+slack); err != nil {
		return sum, err
	}
	return sum, t.flush()
}

// packer writes a tree into an archive.
type packer struct {
	ctx   context.Context
	root  *os.Root
	out   *tar.Writer
	left  int64             // bytes of files that it may still write
	links map[uint64]string // files with several names: inode → the first
	sum   Summary
}

func pack(ctx context.Context, root *os.Root, w io.Writer, most int64) (Summary, error) {
	zip, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return Summary{}, err
	}
	p := &packer{ctx: ctx, root: root, out: tar.NewWriter(zip), left: most, links: map[uint64]string{}}
	if err := p.dir(".", 0); err != nil {
		return p.sum, err
	}
	return p.sum, errors.Join(p.out.Close(), zip.Close())
}

func (p *packer) dir(name string, depth int) error {
	if depth > maxDepth {
		return mesh.Errorf(mesh.TooLarge, "directories of the volume lie more than %d within each other", maxDepth)
	}
	d, err := p.root.Open(name)
	if err != nil {
		return err
	}
	names, err := d.Readdirnames(-1)
	if err := errors.Join(err, d.Close()); err != nil {
		return err
	}
	slices.Sort(names)
	for _, n := range names {
		if err := p.entry(path.Join(name, n), depth); err != nil {
			return err
		}
	}
	return nil
}

func (p *packer) entry(name string, depth int) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	info, err := p.root.Lstat(name)
	if err != nil {
		return err
	}
	h := &tar.Header{Name: name, Mode: int64(info.Mode().Perm()), ModTime: info.ModTime()}
	switch info.Mode().Type() {
	case fs.ModeDir:
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
	case fs.ModeSymlink:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = p.root.Readlink(name); err != nil {
			return err
		}
	case 0:
		h.Typeflag, h.Size = tar.TypeReg, info.Size()
		if inode, several := linked(info); several {
			if first, ok := p.links[inode]; ok {
				h.Typeflag, h.Size, h.Linkname = tar.TypeLink, 0, first
			} else {
				p.links[inode] = name
			}
		}
	default:
		p.sum.Left++
		return nil
	}
	if p.left -= h.Size; p.left < 0 {
		return mesh.Errorf(mesh.TooLarge, "the files of the volume have holes of more than %d times its size, which no archive could hold", thin)
	}
	if err := p.out.WriteHeader(h); err != nil {
		return fmt.Errorf("cannot archive %q: %w", name, err)
	}
	p.sum.Entries++
	switch {
	case h.Typeflag == tar.TypeDir:
		return p.dir(name, depth+1)
	case h.Typeflag == tar.TypeReg && h.Size > 0:
		return p.file(name, h.Size)
	}
	return nil
}

func (p *packer) file(name string, size int64) error {
	f, err := p.root.OpenFile(name, os.O_RDONLY|noWait, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.CopyN(p.out, reader{p.ctx, f}, size)
	p.sum.Bytes += n
	return err
}

// reader ends with its context.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}

// unpacker writes an archive into a tree. Names are resolved inside the tree's root,
// one directory after the other: no link of an archive leads out of it.
type unpacker struct {
	root  *os.Root
	owner int
	sum   Summary
	dirs  []*tar.Header // whose permissions and times are set at the end
}

func malformed(format string, args ...any) *mesh.Error {
	return mesh.Errorf(mesh.Invalid, format, args...).WithRule("volume.archive")
}

func unpack(ctx context.Context, root *os.Root, r io.Reader, owner int, most int64) (Summary, error) {
	in := bufio.NewReaderSize(reader{ctx, r}, 64<<10)
	zip, err := gzip.NewReader(in)
	if err != nil {
		return Summary{}, broken(ctx, err)
	}
	zip.Multistream(false)
	all := &capped{r: zip, left: most}
	u := &unpacker{root: root, owner: owner}
	archive := tar.NewReader(all)
	for {
		h, err := archive.Next()
		if err == io.EOF { // itself: what only wraps it is a connection that broke
			break
		}
		if err != nil {
			return u.sum, broken(ctx, err)
		}
		if err := u.entry(archive, h); err != nil {
			return u.sum, broken(ctx, err)
		}
	}
	for _, h := range slices.Backward(u.dirs) {
		name := path.Clean(h.Name)
		if err := errors.Join(root.Chmod(name, fs.FileMode(h.Mode)&fs.ModePerm), root.Chtimes(name, h.ModTime, h.ModTime)); err != nil {
			return u.sum, err
		}
	}
	// What lies behind the last entry has a checksum all the same.
	if _, err := io.Copy(io.Discard, all); err != nil {
		return u.sum, broken(ctx, err)
	}
	switch _, err := in.ReadByte(); {
	case err == nil:
		return u.sum, malformed("something follows the archive")
	case err != io.EOF: // itself, as above
		return u.sum, broken(ctx, err)
	}
	return u.sum, nil
}

// broken tells what an archive is at fault for.
func broken(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case full(err):
		return mesh.Errorf(mesh.TooLarge, "the files of the archive do not fit into the volume").WithRule("volume.size").WithHint("restore it with a larger --size").Because(err)
	case mesh.KindOf(err) != mesh.Internal:
		return err
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		return malformed("the archive is cut off")
	case errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) || errors.Is(err, tar.ErrHeader):
		return malformed("it is not an archive of a volume (a tar file under gzip), or it is damaged").Because(err)
	}
	return err
}

// capped fails once more was read than may be.
type capped struct {
	r    io.Reader
	left int64
}

func (c *capped) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	if c.left -= int64(n); c.left < 0 {
		return 0, mesh.Errorf(mesh.TooLarge, "the archive is larger than the volume could hold").WithRule("volume.size").WithHint("restore it with a larger --size")
	}
	return n, err
}

func (u *unpacker) entry(r io.Reader, h *tar.Header) error {
	name := path.Clean(h.Name)
	if !inside(name) {
		return malformed("the archive names %.80q, which is outside of the volume", h.Name)
	}
	if u.sum.Entries++; u.sum.Entries > maxEntries || strings.Count(name, "/") > maxDepth {
		return mesh.Errorf(mesh.TooLarge, "the archive has too many entries, or too many directories within each other").WithRule("volume.archive")
	}
	if name == "." {
		return nil // the root is there already
	}
	if err := u.parents(path.Dir(name)); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return u.dir(name, h)
	case tar.TypeReg, tar.TypeGNUSparse:
		return u.file(name, h, r)
	case tar.TypeSymlink:
		if err := u.root.Symlink(h.Linkname, name); err != nil {
			return twice(name, err)
		}
		return u.root.Lchown(name, u.owner, u.owner)
	case tar.TypeLink:
		if !inside(path.Clean(h.Linkname)) {
			return malformed("the archive links %.80q to what is outside of the volume", h.Name)
		}
		return twice(name, u.root.Link(path.Clean(h.Linkname), name))
	case tar.TypeXGlobalHeader:
	default:
		u.sum.Left++
	}
	return nil
}

// inside reports whether a clean path stays below where it begins.
func inside(name string) bool {
	return name != ".." && !strings.HasPrefix(name, "../") && !path.IsAbs(name) && !strings.ContainsRune(name, 0)
}

func twice(name string, err error) error {
	if errors.Is(err, fs.ErrExist) {
		return malformed("the archive names %.80q twice", name)
	}
	return err
}

// parents makes the directories that an archive takes for granted.
func (u *unpacker) parents(dir string) error {
	if dir == "." {
		return nil
	}
	if info, err := u.root.Lstat(dir); err == nil {
		if !info.IsDir() {
			return malformed("the archive puts something below %.80q, which is no directory", dir)
		}
		return nil
	}
	if err := u.parents(path.Dir(dir)); err != nil {
		return err
	}
	return u.mkdir(dir)
}

func (u *unpacker) mkdir(name string) error {
	if err := u.root.Mkdir(name, 0o700); err != nil {
		return twice(name, err)
	}
	return u.root.Lchown(name, u.owner, u.owner)
}

func (u *unpacker) dir(name string, h *tar.Header) error {
	u.dirs = append(u.dirs, h)
	if info, err := u.root.Lstat(name); err == nil && info.IsDir() {
		return nil
	}
	return u.mkdir(name)
}

func (u *unpacker) file(name string, h *tar.Header, r io.Reader) error {
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return twice(name, err)
	}
	defer f.Close()
	n, err := io.Copy(onlyWriter{f}, r)
	u.sum.Bytes += n
	if err != nil {
		return err
	}
	return errors.Join(f.Chown(u.owner, u.owner), f.Chmod(fs.FileMode(h.Mode)&fs.ModePerm), f.Close(), u.root.Chtimes(name, h.ModTime, h.ModTime))
}

// onlyWriter hides what would let the reader decide how much is read at once.
type onlyWriter struct{ io.Writer }
