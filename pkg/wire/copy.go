package wire

import "peercompute/pkg/mesh"

// CopyOut asks for the files at a path of a workload. A tar archive follows the answer as
// FrameStdout frames; FrameCopied or FrameError is the last.
type CopyOut struct {
	Workload mesh.WorkloadID `cbor:"1,keyasint"`
	Path     string          `cbor:"2,keyasint"`
}

// CopyIn asks to unpack a tar archive in a workload. The archive follows as FrameStdin
// frames (empty = its end), with FrameCredit for what was taken; FrameCopied or
// FrameError is the last that comes down.
type CopyIn struct {
	Workload mesh.WorkloadID `cbor:"1,keyasint"`
	Path     string          `cbor:"2,keyasint"`           // a directory, or with Tree the new name of the one tree in the archive
	Tree     bool            `cbor:"3,keyasint,omitempty"` // the archive holds one tree
}

// Copied is what was copied.
type Copied struct {
	Files   int64  `cbor:"1,keyasint"` // directories and links too
	Bytes   int64  `cbor:"2,keyasint"`
	Skipped int64  `cbor:"3,keyasint,omitempty"`
	First   string `cbor:"4,keyasint,omitempty"` // of those skipped
}
