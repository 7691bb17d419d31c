package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"peercompute/pkg/archive"
	"peercompute/pkg/mesh"
)

// errOver ends whichever side of a copy is left when the other has ended.
var errOver = errors.New("the copy is over")

// CopyIn copies a local file, or a directory with all beneath it, into a workload. each is
// told how far it is.
func (c *Client) CopyIn(ctx context.Context, local, ref, peer, path string, each func(CopyReport)) (CopyReport, error) {
	st, err := os.Stat(local)
	if err != nil {
		return CopyReport{}, err
	}
	p := archive.Pack{As: archive.Base(filepath.ToSlash(local)), Each: each}
	var pack func(context.Context, io.Writer) (CopyReport, error)
	switch {
	case st.IsDir():
		dir, err := os.OpenRoot(local)
		if err != nil {
			return CopyReport{}, err
		}
		defer dir.Close()
		pack = func(ctx context.Context, w io.Writer) (CopyReport, error) { return p.Dir(ctx, w, dir) }
	case st.Mode().IsRegular():
		f, err := os.Open(local)
		if err != nil {
			return CopyReport{}, err
		}
		defer f.Close()
		pack = func(ctx context.Context, w io.Writer) (CopyReport, error) { return p.File(ctx, w, f) }
	default:
		return CopyReport{}, fmt.Errorf("%s is neither a file nor a directory", local)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	var packed CopyReport
	var failed error
	var wg sync.WaitGroup
	wg.Go(func() {
		packed, failed = pack(ctx, w)
		w.CloseWithError(failed)
		if failed != nil { // what has no end of its own must not be taken for whole
			cancel()
		}
	})
	did, err := c.Copy(ctx, ref, peer, Copy{Path: path, In: true, Tree: true}, Streams{Stdin: r})
	r.CloseWithError(errOver)
	wg.Wait()
	if err != nil && failed != nil && !errors.Is(failed, errOver) && !errors.Is(failed, context.Canceled) {
		err = failed
	}
	if did.Skipped == 0 {
		did.Skipped, did.First = packed.Skipped, packed.First
	}
	return did, err
}

// CopyOut copies files of a workload to a local path. At most limit bytes are taken, and
// nothing is made but beneath the path, or in its place. each is told how far it is.
func (c *Client) CopyOut(ctx context.Context, ref, peer, path, local string, limit int64, each func(CopyReport)) (CopyReport, error) {
	dir, as, err := archive.Place(filepath.ToSlash(local), func(p string) (fs.FileInfo, error) { return os.Stat(filepath.FromSlash(p)) })
	if err != nil {
		return CopyReport{}, err
	}
	root, err := os.OpenRoot(filepath.FromSlash(dir))
	if err != nil {
		return CopyReport{}, err
	}
	defer root.Close()
	r, w := io.Pipe()
	var made CopyReport
	var failed error
	var wg sync.WaitGroup
	wg.Go(func() {
		made, failed = archive.Unpack{As: as, Links: archive.LinksBeneath, MaxBytes: limit, Each: each}.Into(ctx, root, r)
		if failed == nil {
			_, failed = io.Copy(io.Discard, r) // what an archive is filled up with
		}
		r.CloseWithError(errors.Join(errOver, failed))
	})
	did, err := c.Copy(ctx, ref, peer, Copy{Path: path}, Streams{Stdout: w})
	if err != nil {
		w.CloseWithError(err)
	} else {
		w.Close()
	}
	wg.Wait()
	if failed != nil && (err == nil || errors.Is(err, errOver)) {
		err = failed
	}
	if errors.Is(err, archive.ErrTooLarge) {
		err = mesh.Errorf(mesh.TooLarge, "there is more to copy than the %d bytes or %d files that are taken", limit, archive.MaxEntries).
			WithHint("what came is there; to take more: --max")
	}
	made.Skipped += did.Skipped
	if did.First != "" {
		made.First = did.First
	}
	return made, err
}
