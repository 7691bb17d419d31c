package wire

import "peercompute/pkg/mesh"

// The bodies of requests about volumes. Field numbers are append-only.

// Volumes is empty: list all volumes of the asker.
type Volumes struct{}

// VolumesReply lists them, by name.
type VolumesReply struct {
	Volumes []Volume `cbor:"1,keyasint"`
}

// Volume is a volume as its owner may see it.
type Volume struct {
	ID      mesh.VolumeID `cbor:"1,keyasint"`
	Name    string        `cbor:"2,keyasint"`
	Size    int64         `cbor:"3,keyasint"`           // bytes
	State   string        `cbor:"4,keyasint"`           // ready, restoring or removing
	Created int64         `cbor:"5,keyasint"`           // Unix ms of the peer's clock
	Used    []string      `cbor:"6,keyasint,omitempty"` // names of the workloads that have it
	Filled  int64         `cbor:"7,keyasint,omitempty"` // bytes that are not free; 0 = not known, or never used
}

// VolumeRef names one volume (remove, backup). After the answer to a backup come
// FrameData with the archive, and FrameArchive or FrameError as the last.
type VolumeRef struct {
	Volume mesh.VolumeID `cbor:"1,keyasint"`
}

// RestoreVolume makes a volume. FrameData with the archive follow, and FrameArchive;
// then comes FrameArchive once the volume can be used, or FrameError.
type RestoreVolume struct {
	Name string `cbor:"1,keyasint"`
	Size int64  `cbor:"2,keyasint"` // bytes
}

// Archive says what went through a backup or a restore.
type Archive struct {
	Digest  string `cbor:"1,keyasint"` // of the archive's bytes, "sha256:…"
	Size    int64  `cbor:"2,keyasint"` // bytes of the archive
	Entries int    `cbor:"3,keyasint,omitempty"`
	Bytes   int64  `cbor:"4,keyasint,omitempty"` // of its files
	Left    int    `cbor:"5,keyasint,omitempty"` // sockets, pipes and devices, which were left out
}

// FrameArchive ends an archive: CBOR Archive.
const FrameArchive byte = 14
