package wasm

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sys/unix"
)

// budget is the memory that all instances of a worker share, in bytes.
type budget struct {
	limit int64

	mu   sync.Mutex
	used int64
}

func (b *budget) reserve(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > b.limit-b.used {
		return false
	}
	b.used += n
	return true
}

func (b *budget) release(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
}

var errNoMemory = errors.New("the module asks for more memory at its start than it may have")

// linear is the memory of one instance: a range of addresses of its limit's size,
// of which the used part is readable. It lies outside the Go heap, so it is not
// copied as it grows, costs no collection, and pages that the guest never touches
// do not exist.
type linear struct {
	limit  int64 // bytes
	image  *image
	pool   *pool // where its pages come from and go to; nil = the system
	shared *budget
	now    *atomic.Int64 // what this and its sisters use, in bytes

	pages   []byte
	ready   int64 // bytes of them that can be used, and beyond size are as at the start
	size    int64 // bytes in use
	peak    int64
	denied  bool // a growth was refused
	starved bool // and it was for want of shared memory
}

var (
	_ experimental.MemoryAllocator = (*linear)(nil)
	_ experimental.LinearMemory    = (*linear)(nil)
)

// Allocate implements experimental.MemoryAllocator. An instance has one memory.
func (l *linear) Allocate(_, _ uint64) experimental.LinearMemory { return l }

// Reallocate implements experimental.LinearMemory.
func (l *linear) Reallocate(size uint64) []byte {
	first := l.pages == nil
	if !l.grow(size) {
		l.denied = true
		if first {
			// The interface has no way to refuse the first allocation; run recovers.
			panic(errNoMemory)
		}
		return nil
	}
	return l.pages[:size:size]
}

func (l *linear) grow(size uint64) bool {
	if size > uint64(l.limit) {
		return false
	}
	if l.pages == nil {
		if m := l.pool.take(max(l.limit, 1)); m != nil {
			l.pages, l.ready = m.b, m.ready
		}
	}
	if l.pages == nil {
		pages, err := unix.Mmap(-1, 0, int(max(l.limit, 1)), unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			return false
		}
		l.pages = pages
	}
	more := int64(size) - l.size
	if more <= 0 {
		return true
	}
	if !l.shared.reserve(more) {
		l.starved = true
		return false
	}
	if int64(size) > l.ready {
		err := unix.Mprotect(l.pages[l.ready:size], unix.PROT_READ|unix.PROT_WRITE)
		if err == nil && l.ready == 0 {
			err = l.image.mapOver(l.pages[:size])
		}
		if err != nil {
			l.shared.release(more)
			return false
		}
		l.ready = int64(size)
	}
	l.size = int64(size)
	l.now.Add(more)
	l.peak = max(l.peak, l.size)
	return true
}

// Free implements experimental.LinearMemory.
func (l *linear) Free() {
	if l.pages == nil {
		return
	}
	if !l.pool.put(pages{l.pages, l.ready}, l.size) {
		unmap(l.pages)
	}
	l.pages, l.ready = nil, 0
	l.shared.release(l.size)
	l.now.Add(-l.size)
	l.size = 0
}
