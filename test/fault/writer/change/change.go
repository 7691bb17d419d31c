// Package change is what the writer writes, and how a test tells whether it is there.
package change

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"peercompute/pkg/store"
)

const (
	Writers = 4   // changes under way at the same time, at most
	Window  = 200 // elements that are kept
)

func key(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func value(n uint64) []byte { return bytes.Repeat([]byte{byte(n), byte(n >> 8)}, 20+int(n%7)*100) }

// Make makes change n.
func Make(tx *store.Tx, n uint64) error {
	err := errors.Join(tx.Put(store.Nonces, key(n), value(n)), tx.Put(store.NonceExpiry, key(n), nil))
	if n >= Window {
		err = errors.Join(err, tx.Delete(store.Nonces, key(n-Window)), tx.Delete(store.NonceExpiry, key(n-Window)))
	}
	return err
}

// Check requires that the change was made, and whole: its element is there, unless
// a later one may have dropped it, and what it dropped is not. next is the first
// change that was certainly never begun.
func Check(tx *store.Tx, n, next uint64) error {
	if n+Window >= next && !bytes.Equal(tx.Get(store.Nonces, key(n)), value(n)) {
		return fmt.Errorf("change %d was acknowledged, and is not there", n)
	}
	if n >= Window && (tx.Get(store.Nonces, key(n-Window)) != nil) {
		return fmt.Errorf("change %d was acknowledged, and only half of it is there", n)
	}
	return nil
}
