package driver

import (
	"context"
	"io"

	"peercompute/pkg/mesh"
)

// Volumes is implemented by drivers whose workloads can keep files in volumes. A
// volume is used by one workload at a time; what wants one that is in use gets
// mesh.Unavailable.
type Volumes interface {
	// VolumesReady says why there can be no volumes on this machine; nil = there can.
	VolumesReady(ctx context.Context) error
	// MakeVolume makes a volume and takes all its space from the disk. Idempotent.
	MakeVolume(ctx context.Context, v Volume) error
	// VolumeUsed is how many bytes of a volume are not free.
	VolumeUsed(ctx context.Context, id mesh.VolumeID) (int64, error)
	// VolumeFiles lists the files in which volumes are or were, with their bytes.
	VolumeFiles(ctx context.Context) (map[mesh.VolumeID]VolumeFile, error)
	// RemoveVolume removes a volume with all its files. No error if there is none.
	RemoveVolume(ctx context.Context, id mesh.VolumeID) error
	// BackupVolume writes an archive of a volume's files.
	BackupVolume(ctx context.Context, v Volume, w io.Writer) (Archive, error)
	// RestoreVolume fills a new volume with the files of such an archive. After an error
	// the volume is to be removed.
	RestoreVolume(ctx context.Context, v Volume, r io.Reader) (Archive, error)
}

// Volume is a file system of a fixed size.
type Volume struct {
	ID   mesh.VolumeID
	Name string
	Size int64  // bytes
	User uint32 // its files are this user's, inside; all volumes of an owner have the same
	Made bool   // it has been made: one that is not there was lost
}

// VolumeFile is a file that holds a volume.
type VolumeFile struct {
	Path  string
	Bytes int64
}

// Archive is what went through a backup or a restore.
type Archive struct {
	Entries int   // files, directories and links
	Bytes   int64 // of its files
	Left    int   // sockets, pipes and devices, which were left out
}
