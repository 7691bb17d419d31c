package store

import (
	"encoding/binary"

	bolt "go.etcd.io/bbolt"

	"peercompute/pkg/mesh"
)

// migrations bring a state file from one version to the next: the first from 1 to
// 2, and so on. All that an old file needs run in the one transaction in which it
// is opened, so a crash leaves the old file or the new one. A step that was
// released is never changed, and a file of each version, made by the program that
// wrote that version, stays in testdata for ever.
var migrations = [...]func(*bolt.Tx) error{
	lendBucket,
	sumAndMark,
}

// Version is the schema version that this program writes.
const Version = 1 + len(migrations)

// oldPause is where version 1 kept that lending is paused, in Meta.
var oldPause = []byte("pause")

// lendBucket (1 to 2) gives what the owner lends a bucket of its own.
func lendBucket(tx *bolt.Tx) error {
	lend, err := tx.CreateBucketIfNotExists([]byte(Lend))
	if err != nil {
		return err
	}
	meta := tx.Bucket([]byte(Meta))
	if v := meta.Get(oldPause); v != nil {
		if err := lend.Put(oldPause, append([]byte(nil), v...)); err != nil {
			return err
		}
	}
	return meta.Delete(oldPause)
}

// sumAndMark (2 to 3) changes nothing itself: from here on a file without a sum and a
// mark is refused, and both are made when it is opened.
func sumAndMark(*bolt.Tx) error { return nil }

// migrate brings an old file to Version and returns the version that it had.
func migrate(tx *bolt.Tx, meta *bolt.Bucket) (from int, err error) {
	v := meta.Get(keyVersion)
	if len(v) != 8 || binary.BigEndian.Uint64(v) == 0 {
		return 0, mesh.Errorf(mesh.Invalid, "the state file has no version").WithHint("it is damaged; restore it from a backup")
	}
	n := binary.BigEndian.Uint64(v)
	if n > uint64(Version) {
		return 0, mesh.Errorf(mesh.Unsupported, "the state file is of version %d, newer than this program's %d", n, Version).
			WithHint("run the newer peerd that wrote it")
	}
	from = int(n)
	for _, step := range migrations[from-1:] {
		if err := step(tx); err != nil {
			return from, err
		}
	}
	return from, nil
}
