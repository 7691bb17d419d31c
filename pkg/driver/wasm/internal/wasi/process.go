package wasi

import (
	"io"
	"time"

	"github.com/tetratelabs/wazero/sys"

	"peercompute/pkg/driver/wasm/internal/errno"
)

func exit(code uint32) { panic(sys.NewExitError(code)) }

func unsupported(*Guest, []uint64) errno.Errno { return errno.NotSup }

func argsGet(g *Guest, p []uint64) errno.Errno      { return g.giveStrings(g.Args, p[0], p[1]) }
func argsSizesGet(g *Guest, p []uint64) errno.Errno { return g.giveSizes(g.Args, p[0], p[1]) }

func environGet(g *Guest, p []uint64) errno.Errno {
	g.begin()
	return g.giveStrings(g.Env, p[0], p[1])
}

func environSizesGet(g *Guest, p []uint64) errno.Errno {
	g.begin()
	return g.giveSizes(g.Env, p[0], p[1])
}

// sizeOf is how many bytes the strings take with a zero after each.
func sizeOf(list []string) uint64 {
	n := uint64(len(list))
	for _, s := range list {
		n += uint64(len(s))
	}
	return n
}

func (g *Guest) giveSizes(list []string, count, size uint64) errno.Errno {
	if e := g.put32(count, uint32(len(list))); e != 0 {
		return e
	}
	return g.put32(size, uint32(sizeOf(list)))
}

func (g *Guest) giveStrings(list []string, pointers, text uint64) errno.Errno {
	size := sizeOf(list)
	g.Meter.Charge(size / perUnit)
	ptr, ok := g.bytes(pointers, 4*uint64(len(list)))
	if !ok {
		return errno.Fault
	}
	buf, ok := g.bytes(text, size)
	if !ok {
		return errno.Fault
	}
	at := uint32(text)
	for i, s := range list {
		le.PutUint32(ptr[4*i:], at)
		n := copy(buf, s)
		buf[n] = 0
		buf = buf[n+1:]
		at += uint32(n) + 1
	}
	return 0
}

// The clocks that there are.
const (
	clockRealtime  = 0
	clockMonotonic = 1
)

func (g *Guest) clock(id uint64) (int64, bool) {
	switch uint32(id) {
	case clockRealtime:
		return g.Wall(), true
	case clockMonotonic:
		return g.Monotonic(), true
	}
	return 0, false
}

func clockResGet(g *Guest, p []uint64) errno.Errno {
	if uint32(p[0]) > clockMonotonic {
		return errno.Invalid
	}
	return g.put64(p[1], uint64(time.Microsecond))
}

func clockTimeGet(g *Guest, p []uint64) errno.Errno {
	t, ok := g.clock(p[0])
	if !ok {
		return errno.Invalid
	}
	return g.put64(p[2], uint64(t))
}

func schedYield(g *Guest, _ []uint64) errno.Errno {
	g.Meter.Check()
	return 0
}

func randomGet(g *Guest, p []uint64) errno.Errno {
	b, ok := g.bytes(p[0], p[1])
	if !ok {
		return errno.Fault
	}
	g.Meter.Charge(uint64(len(b))) // eight times what it costs to copy
	for len(b) > 0 {
		piece := b[:min(len(b), stretch/16)]
		if _, err := io.ReadFull(g.Random, piece); err != nil {
			return errno.IO
		}
		if b = b[len(piece):]; len(b) > 0 {
			g.Meter.Check()
		}
	}
	return 0
}
