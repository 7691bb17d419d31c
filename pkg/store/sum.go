package store

import (
	"crypto/sha256"
	"encoding/binary"

	bolt "go.etcd.io/bbolt"
)

// sum stands for everything that a state file holds, whatever the order it was
// written in: each element is hashed with its bucket and key, and the hashes are
// added without carry. A change updates it in the transaction that makes the change.
// It finds damage by accident; who may write the file on purpose can write the sum.
type sum [16]byte

// keySum is where the sum is kept, in Meta. It is not part of itself.
var keySum = []byte("sum")

// mix adds an element, or takes it away: that is the same. buf is room to work in,
// returned for the next call.
func (s *sum) mix(buf []byte, bucket string, key, value []byte) []byte {
	buf = append(binary.AppendUvarint(buf[:0], uint64(len(bucket))), bucket...)
	buf = append(binary.AppendUvarint(buf, uint64(len(key))), key...)
	buf = append(buf, value...)
	h := sha256.Sum256(buf)
	for i := range s {
		s[i] ^= h[i]
	}
	return buf
}

// summing is a transaction's sum, as it changes.
type summing struct {
	sum
	buf []byte
}

// replace accounts for a change of one key. bbolt tells a key without a value from
// one that is missing only through a cursor.
func (s *summing) replace(b *bolt.Bucket, name Bucket, key, value []byte, deleted bool) {
	if name == Meta && string(key) == string(keySum) {
		return
	}
	if k, old := b.Cursor().Seek(key); k != nil && string(k) == string(key) {
		s.buf = s.mix(s.buf, string(name), key, old)
	}
	if !deleted {
		s.buf = s.mix(s.buf, string(name), key, value)
	}
}

// save writes the sum into the transaction it stands for.
func (s *summing) save(tx *bolt.Tx) error {
	return tx.Bucket([]byte(Meta)).Put(keySum, append([]byte(nil), s.sum[:]...))
}

// sumOf adds up everything that a transaction sees.
func sumOf(tx *bolt.Tx) (*summing, error) {
	s := &summing{}
	err := tx.ForEach(func(name []byte, b *bolt.Bucket) error {
		return b.ForEach(func(k, v []byte) error {
			if string(name) != string(Meta) || string(k) != string(keySum) {
				s.buf = s.mix(s.buf, string(name), k, v)
			}
			return nil
		})
	})
	return s, err
}
