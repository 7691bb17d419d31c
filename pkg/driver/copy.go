package driver

import (
	"context"
	"io"

	"peercompute/pkg/archive"
)

// Copier is implemented by tasks whose files can be copied while they run. Paths are
// the workload's own: absolute, and links mean what they mean to it. Nothing is read or
// written that its own program could not, within the same bounds.
type Copier interface {
	// CopyOut writes what is at path to w as a tar archive.
	CopyOut(ctx context.Context, path string, w io.Writer) (archive.Report, error)
	// CopyIn unpacks a tar archive. r may still be read when it returns; a Read that
	// waits then must be ended by who called.
	CopyIn(ctx context.Context, to CopyTo, r io.Reader) (archive.Report, error)
}

// CopyTo says where what is copied in goes.
type CopyTo struct {
	// Path is a directory, or the new name of the one tree in the archive.
	Path string
	// Tree says that the archive holds one tree; otherwise Path must be a directory.
	Tree bool
}
