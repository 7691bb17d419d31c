package volume

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"peercompute/pkg/archive"
	"peercompute/pkg/mesh"
)

// This file is the archive of a volume: a tar file under gzip, which other programs
// read too. Only directories, files, hard and symbolic links are in it, with their
// permissions and times. Who owns a file is not: all of a volume is one user's. What reads
// and writes it is pkg/archive, as for copies into and out of containers.

// Bounds of an archive, so that neither a volume nor an archive keeps peerd busy for ever.
const (
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

func pack(ctx context.Context, root *os.Root, w io.Writer, most int64) (Summary, error) {
	zip, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return Summary{}, err
	}
	r, err := archive.Pack{As: ".", Whole: true, MaxBytes: most}.Dir(ctx, zip, root)
	sum := summary(r)
	sum.Entries-- // the root itself
	if errors.Is(err, archive.ErrTooLarge) {
		return sum, mesh.Errorf(mesh.TooLarge, "the volume holds directories too deep within each other, or holes of more than %d times its size, which no archive could hold", thin).Because(err)
	}
	return sum, errors.Join(err, zip.Close())
}

func summary(r archive.Report) Summary {
	return Summary{Entries: int(r.Files), Bytes: r.Bytes, Left: int(r.Skipped)}
}

func malformed(format string, args ...any) *mesh.Error {
	return mesh.Errorf(mesh.Invalid, format, args...).WithRule("volume.archive")
}

func unpack(ctx context.Context, root *os.Root, r io.Reader, owner int, most int64) (Summary, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	zip, err := gzip.NewReader(in)
	if err != nil {
		return Summary{}, broken(ctx, err)
	}
	zip.Multistream(false)
	all := &capped{r: zip, left: most}
	report, err := archive.Unpack{Whole: true, Links: archive.LinksAny, Owner: owner, MaxBytes: most, MaxEntries: maxEntries}.Into(ctx, root, all)
	sum := summary(report)
	if err != nil {
		return sum, broken(ctx, err)
	}
	// What lies behind the last entry has a checksum all the same.
	if _, err := io.Copy(io.Discard, all); err != nil {
		return sum, broken(ctx, err)
	}
	switch _, err := in.ReadByte(); {
	case err == nil:
		return sum, malformed("something follows the archive")
	case err != io.EOF: // itself: what only wraps it is a connection that broke
		return sum, broken(ctx, err)
	}
	return sum, nil
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
	case errors.Is(err, archive.ErrTooLarge):
		return mesh.Errorf(mesh.TooLarge, "the archive is larger than the volume could hold: %v", err).WithRule("volume.size").WithHint("restore it with a larger --size")
	case errors.Is(err, archive.ErrMalformed), errors.Is(err, archive.ErrBeneathLink):
		return malformed("the archive cannot be a volume's: %v", err)
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
