package wasm

import (
	"bytes"
	"sync/atomic"
	"testing"
	"time"
)

// An instance that gets the memory of another finds nothing of it, wherever that one
// wrote and however far it grew.
func TestPooledMemoryIsAsAtTheStart(t *testing.T) {
	_, img, err := takeImage(t.TempDir(), assemble("the text of the module", say(1, "x")))
	if err != nil || img == nil {
		t.Fatal(err)
	}
	defer img.close()
	for name, image := range map[string]*image{"with an image": img, "without": nil} {
		t.Run(name, func(t *testing.T) {
			var kept, now atomic.Int64
			shared := &budget{limit: 1 << 30}
			p := &pool{image: image, shared: &kept}
			defer p.close()
			get := func() *linear { return &linear{limit: 8 << 20, image: image, pool: p, shared: shared, now: &now} }
			first := get()
			start := bytes.Clone(first.Reallocate(wasmPage))
			all := first.Reallocate(4 << 20)
			for i := range all {
				all[i] = 0xa5
			}
			at := &all[0]
			first.Free()
			if kept.Load() != 4<<20 || shared.used != 0 {
				t.Errorf("%d bytes are kept, %d held", kept.Load(), shared.used)
			}
			second := get()
			b := second.Reallocate(wasmPage)
			if &b[0] != at {
				t.Fatal("it is another memory: this test would show nothing")
			}
			if !bytes.Equal(b, start) || len(b) != wasmPage || second.size != wasmPage {
				t.Errorf("it begins with %d bytes that are not those of the start", len(b))
			}
			if b = second.Reallocate(6 << 20); !bytes.Equal(b[wasmPage:], make([]byte, len(b)-wasmPage)) {
				t.Error("what it grows into is not empty")
			}
			second.Free()
			if other := (&linear{limit: 4 << 20, image: image, pool: p, shared: shared, now: &now}); true {
				if b := other.Reallocate(wasmPage); &b[0] == at {
					t.Error("one with another limit gets it")
				}
				other.Free()
			}
			p.drain()
			if kept.Load() != 0 {
				t.Errorf("%d bytes are left", kept.Load())
			}
		})
	}
}

func TestPoolIsBounded(t *testing.T) {
	var kept, now atomic.Int64
	shared := &budget{limit: 1 << 30}
	p := &pool{shared: &kept}
	defer p.close()
	var all []*linear
	for range 3 * poolCount {
		l := &linear{limit: 32 << 20, pool: p, shared: shared, now: &now}
		l.Reallocate(8 << 20)
		all = append(all, l)
	}
	began := time.Now()
	large := &linear{limit: 32 << 20, pool: p, shared: shared, now: &now}
	large.Reallocate(poolEach + wasmPage)
	large.Free()
	for _, l := range all {
		l.Free()
	}
	p.mu.Lock()
	memories := len(p.free)
	p.mu.Unlock()
	if n := kept.Load(); n > poolTotal || n < poolTotal/2 && time.Since(began) < poolIdle || memories > poolCount {
		t.Errorf("%d bytes in %d memories are kept", n, memories)
	}
	eventually(t, poolIdle+30*time.Second, "nothing is kept without use", func() bool { return kept.Load() == 0 })
	p.close()
	last := &linear{limit: 32 << 20, pool: p, shared: shared, now: &now}
	last.Reallocate(wasmPage)
	last.Free()
	if kept.Load() != 0 {
		t.Error("a pool that is closed keeps something")
	}
}
