package wasm

import (
	"bytes"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// pool keeps the memories of instances that have ended for the next ones of the
// same module. An instance is new all the same: its memory is made what it was at
// the start, byte by byte, before anybody gets it again. To map memory, have the
// kernel fault in its pages one by one, and unmap it cost several times as much as
// most requests themselves.
type pool struct {
	image  *image        // what a memory has at its beginning; nil = zeros
	shared *atomic.Int64 // bytes that all pools of the worker keep

	mu    sync.Mutex
	free  []pages
	timer *time.Timer
	ended bool
}

// pages is a mapping: an address range of a memory's limit, of which the first
// ready bytes can be used.
type pages struct {
	b     []byte
	ready int64
}

// What a pool keeps at most, and for how long after its last use.
const (
	poolEach  = 16 << 20 // bytes of one memory; a larger one is given back
	poolTotal = 64 << 20 // bytes of all modules together
	poolCount = 16       // memories of one module
	poolIdle  = 5 * time.Second
)

// take is a memory with this limit that is as at the start; nil if there is none.
func (p *pool) take(limit int64) *pages {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.free) - 1; i >= 0; i-- {
		if m := p.free[i]; int64(len(m.b)) == limit {
			p.free = append(p.free[:i], p.free[i+1:]...)
			p.shared.Add(-m.ready)
			return &m
		}
	}
	return nil
}

// put takes a memory over, of which used bytes were an instance's. It reports
// false, and the memory stays the caller's, if there is no use for it.
func (p *pool) put(m pages, used int64) bool {
	if p == nil || m.ready > poolEach {
		return false
	}
	if p.shared.Add(m.ready) > poolTotal {
		p.shared.Add(-m.ready)
		return false
	}
	p.image.restore(m.b[:used]) // not under the lock: it takes its time
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended || len(p.free) >= poolCount {
		p.shared.Add(-m.ready)
		return false
	}
	p.free = append(p.free, m)
	if p.timer == nil {
		p.timer = time.AfterFunc(poolIdle, p.drain)
	} else {
		p.timer.Reset(poolIdle)
	}
	return true
}

// drain gives all back.
func (p *pool) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.free {
		unmap(m.b)
		p.shared.Add(-m.ready)
	}
	p.free = nil
}

// close is drain for good.
func (p *pool) close() {
	p.mu.Lock()
	p.ended = true
	if p.timer != nil {
		p.timer.Stop()
	}
	p.mu.Unlock()
	p.drain()
}

// unmap fails only for a range that is not mapped, which would be our own fault.
func unmap(b []byte) {
	if err := unix.Munmap(b); err != nil {
		panic(err)
	}
}

const page = 4096

var zeroPage [page]byte

// restore makes b, the memory of an instance from its first byte on, what it was at
// the start: the image, and zeros behind it. It looks at each byte: what the kernel
// says of pages that were never touched is also true of those that it swapped out.
func (i *image) restore(b []byte) {
	from := int64(0)
	if i != nil {
		from = min(i.size, int64(len(b)))
		for at := int64(0); at < from; at += page {
			if was := i.pristine[at : at+page]; !bytes.Equal(b[at:at+page], was) {
				copy(b[at:at+page], was)
			}
		}
	}
	for rest := b[from:]; len(rest) > 0; rest = rest[page:] {
		if p := rest[:page]; !bytes.Equal(p, zeroPage[:]) {
			clear(p)
		}
	}
}
