package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/bits"
)

// This file reads a state file from its first page to its last before the database
// does. bbolt checks only its two head pages; of damage elsewhere it would hand out
// what is left, or end the process. Here every page is followed, bounded and put in
// order, and what it all amounts to is compared with the sum that was written along.

// reading is what a state file holds, as far as opening it needs to know.
type reading struct {
	txid        uint64 // of the last transaction
	sum         sum    // of what is there
	want        []byte // the sum that was written; nil = none was
	incarnation []byte
	version     []byte
}

// The layout of bbolt's pages, in the machine's (little-endian) order.
const (
	pageHead     = 16 // id 8, flags 2, count 2, overflow 4
	leafElem     = 16 // flags 4, position 4, key size 4, value size 4
	branchElem   = 16 // position 4, key size 4, page 8
	bucketHead   = 16 // root page 8, sequence 8
	metaSize     = 64 // magic 4, version 4, page size 4, flags 4, root bucket 16, free list 8, pages 8, transaction 8, checksum 8
	metaMagic    = 0xED0CDAED
	metaVersion  = 2
	flagBranch   = 1
	flagLeaf     = 2
	flagMeta     = 4
	flagFreeList = 16
	noFreeList   = ^uint64(0)
	maxDepth     = 64 // of a tree; the deepest that 2^64 pages could make
)

var le = binary.LittleEndian

type metaPage struct{ pageSize, root, freeList, pages, txid uint64 }

// parseMeta reads a head page, and reports whether it is whole.
func parseMeta(b []byte) (m metaPage, ok bool) {
	if len(b) < pageHead+metaSize || le.Uint16(b[8:])&flagMeta == 0 {
		return m, false
	}
	b = b[pageHead:]
	h := fnv.New64a()
	h.Write(b[:metaSize-8])
	if le.Uint32(b) != metaMagic || le.Uint32(b[4:]) != metaVersion || le.Uint64(b[metaSize-8:]) != h.Sum64() {
		return m, false
	}
	m = metaPage{uint64(le.Uint32(b[8:])), le.Uint64(b[16:]), le.Uint64(b[32:]), le.Uint64(b[40:]), le.Uint64(b[48:])}
	return m, m.pageSize >= 512 && m.pageSize <= 1<<20 && bits.OnesCount64(m.pageSize) == 1
}

// inspector walks one file.
type inspector struct {
	f    io.ReaderAt
	meta metaPage
	seen []uint64 // bit set of the pages that were reached
	out  *reading
	buf  []byte // of the element being summed
}

// inspect reads the file of the given size. It fails for any damage to what the
// last whole transaction left.
func inspect(f io.ReaderAt, size int64) (*reading, error) {
	m, err := lastMeta(f, size)
	if err != nil {
		return nil, err
	}
	if m.pages > uint64(size)/m.pageSize {
		return nil, fmt.Errorf("it has %d bytes, and its head speaks of %d pages of %d", size, m.pages, m.pageSize)
	}
	w := &inspector{f: f, meta: m, seen: make([]uint64, m.pages/64+1), out: &reading{txid: m.txid}}
	if m.freeList != noFreeList {
		if _, err := w.page(m.freeList, flagFreeList); err != nil {
			return nil, err
		}
	}
	if err := w.tree(m.root, "", nil, nil, 0); err != nil {
		return nil, err
	}
	return w.out, nil
}

// lastMeta returns the newer of the head pages that are whole. One may be torn: a
// crash while it was written leaves the other.
func lastMeta(f io.ReaderAt, size int64) (best metaPage, err error) {
	found := false
	look := func(at int64) {
		b := make([]byte, pageHead+metaSize)
		if _, err := f.ReadAt(b, at); err != nil {
			return
		}
		if m, ok := parseMeta(b); ok && (at == 0 || uint64(at) == m.pageSize) && (!found || m.txid > best.txid) {
			best, found = m, true
		}
	}
	look(0)
	for at := int64(512); at <= 1<<20 && at < size; at *= 2 {
		look(at)
	}
	if !found {
		return best, errors.New("neither of its head pages is whole")
	}
	return best, nil
}

// page reads a page with those that continue it, which nothing else may have reached.
func (w *inspector) page(id uint64, want ...uint16) ([]byte, error) {
	if id < 2 || id >= w.meta.pages {
		return nil, fmt.Errorf("a reference to page %d of %d", id, w.meta.pages)
	}
	head := make([]byte, pageHead)
	at := int64(id * w.meta.pageSize)
	if _, err := w.f.ReadAt(head, at); err != nil {
		return nil, fmt.Errorf("page %d cannot be read: %w", id, err)
	}
	flags, more := le.Uint16(head[8:]), uint64(le.Uint32(head[12:]))
	if le.Uint64(head) != id || more >= w.meta.pages-id {
		return nil, fmt.Errorf("page %d is not what it should be", id)
	}
	known := false
	for _, f := range want {
		known = known || f == flags
	}
	if !known {
		return nil, fmt.Errorf("page %d is of kind %#x", id, flags)
	}
	for i := id; i <= id+more; i++ {
		if w.seen[i/64]&(1<<(i%64)) != 0 {
			return nil, fmt.Errorf("page %d is used twice", i)
		}
		w.seen[i/64] |= 1 << (i % 64)
	}
	b := make([]byte, (more+1)*w.meta.pageSize)
	if _, err := w.f.ReadAt(b, at); err != nil {
		return nil, fmt.Errorf("page %d cannot be read: %w", id, err)
	}
	return b, nil
}

// tree follows a tree of pages whose keys lie in [low, high). bucket is empty for
// the tree of buckets itself.
func (w *inspector) tree(id uint64, bucket string, low, high []byte, depth int) error {
	if depth > maxDepth {
		return errors.New("its tree is too deep")
	}
	b, err := w.page(id, flagBranch, flagLeaf)
	if err != nil {
		return err
	}
	if le.Uint16(b[8:]) == flagLeaf {
		return w.leaf(b, id, bucket, low, high)
	}
	n := int(le.Uint16(b[10:]))
	if n == 0 || pageHead+n*branchElem > len(b) {
		return fmt.Errorf("page %d holds %d branches", id, n)
	}
	keys := make([][]byte, n+1)
	for i := range n {
		at := pageHead + i*branchElem
		if keys[i], err = slice(b, at+int(le.Uint32(b[at:])), int(le.Uint32(b[at+4:]))); err != nil {
			return fmt.Errorf("page %d: %w", id, err)
		}
	}
	keys[n] = high
	for i := range n {
		if err := inOrder(id, keys[i], low, keys[i+1]); err != nil {
			return err
		}
		if err := w.tree(le.Uint64(b[pageHead+i*branchElem+8:]), bucket, keys[i], keys[i+1], depth+1); err != nil {
			return err
		}
		low = keys[i]
	}
	return nil
}

// leaf reads the elements of a leaf page, or of one that lies inside a value.
func (w *inspector) leaf(b []byte, id uint64, bucket string, low, high []byte) error {
	n := int(le.Uint16(b[10:]))
	if pageHead+n*leafElem > len(b) {
		return fmt.Errorf("page %d holds %d elements", id, n)
	}
	var last []byte
	for i := range n {
		at := pageHead + i*leafElem
		pos, ksize, vsize := at+int(le.Uint32(b[at+4:])), int(le.Uint32(b[at+8:])), int(le.Uint32(b[at+12:]))
		both, err := slice(b, pos, ksize+vsize)
		if err != nil || ksize > len(both) {
			return fmt.Errorf("page %d: %w", id, errOutside)
		}
		k, v := both[:ksize], both[ksize:]
		if err := inOrder(id, k, low, high); err != nil || i > 0 && bytes.Compare(last, k) >= 0 {
			return fmt.Errorf("page %d is out of order", id)
		}
		last = k
		switch flags := le.Uint32(b[at:]); {
		case flags == 0 && bucket != "":
			w.element(bucket, k, v)
		case flags == 1 && bucket == "" && ksize > 0:
			if err := w.bucket(string(k), v, id); err != nil {
				return err
			}
		default:
			return fmt.Errorf("page %d holds an element of kind %d", id, flags)
		}
	}
	return nil
}

func (w *inspector) bucket(name string, v []byte, id uint64) error {
	if len(v) < bucketHead {
		return fmt.Errorf("bucket %q is cut off", name)
	}
	if root := le.Uint64(v); root != 0 {
		return w.tree(root, name, nil, nil, 0)
	}
	// A small bucket lies inside its value, as a leaf page.
	if v = v[bucketHead:]; len(v) < pageHead || le.Uint16(v[8:]) != flagLeaf {
		return fmt.Errorf("bucket %q is cut off", name)
	}
	return w.leaf(v, id, name, nil, nil)
}

func (w *inspector) element(bucket string, k, v []byte) {
	if bucket == string(Meta) {
		switch string(k) {
		case string(keySum):
			w.out.want = bytes.Clone(v)
			return
		case string(keyIncarnation):
			w.out.incarnation = bytes.Clone(v)
		case string(keyVersion):
			w.out.version = bytes.Clone(v)
		}
	}
	w.buf = w.out.sum.mix(w.buf, bucket, k, v)
}

var errOutside = errors.New("an element lies outside of it")

// slice is n bytes of b from at, or an error if b does not have them.
func slice(b []byte, at, n int) ([]byte, error) {
	if at < pageHead || n < 0 || at > len(b) || n > len(b)-at {
		return nil, errOutside
	}
	return b[at : at+n], nil
}

func inOrder(id uint64, key, low, high []byte) error {
	if low != nil && bytes.Compare(key, low) < 0 || high != nil && bytes.Compare(key, high) >= 0 {
		return fmt.Errorf("page %d is out of order", id)
	}
	return nil
}
