package wasi

import (
	"time"

	"peercompute/pkg/driver/wasm/internal/errno"
)

const (
	subscriptionLen = 48
	eventLen        = 32
	maxSubs         = 4096
	subCost         = 8
)

// The kinds of event.
const (
	eventClock = 0
	eventRead  = 1
	eventWrite = 2
)

// eventHangup says that the other side has gone.
const eventHangup = 1

// subscription is one thing that a guest waits for.
type subscription struct {
	user uint64
	kind byte
	fd   uint32
	at   int64 // of a clock: when it is due, by Monotonic
}

// subscriptions reads them from the guest's memory.
func (g *Guest) subscriptions(b []byte) errno.Errno {
	g.subs = g.subs[:0]
	now := g.Monotonic()
	for ; len(b) > 0; b = b[subscriptionLen:] {
		s := subscription{user: le.Uint64(b), kind: b[8], fd: le.Uint32(b[16:])}
		switch s.kind {
		case eventRead, eventWrite:
		case eventClock:
			d := int64(min(le.Uint64(b[24:]), 1<<62))
			switch le.Uint16(b[40:]) {
			case 0:
			case 1: // a time on that clock
				t, ok := g.clock(uint64(s.fd))
				if !ok {
					return errno.Invalid
				}
				d = max(0, d-t)
			default:
				return errno.Invalid
			}
			s.at = now + min(d, 1<<62-now)
		default:
			return errno.Invalid
		}
		g.subs = append(g.subs, s)
	}
	return 0
}

// pollOneoff waits until one of the subscriptions is due, and says which are.
func pollOneoff(g *Guest, p []uint64) errno.Errno {
	n := uint64(uint32(p[2]))
	if n == 0 || n > maxSubs {
		return errno.Invalid
	}
	g.Meter.Charge(n * subCost)
	in, ok := g.bytes(p[0], n*subscriptionLen)
	if !ok {
		return errno.Fault
	}
	out, ok := g.bytes(p[1], n*eventLen)
	if !ok {
		return errno.Fault
	}
	if e := g.subscriptions(in); e != 0 {
		return e
	}
	for {
		if due := g.events(out); due > 0 {
			return g.put32(p[3], uint32(due))
		}
		wait := time.Duration(-1)
		for _, s := range g.subs {
			if s.kind == eventClock {
				if d := time.Duration(max(0, s.at-g.Monotonic())); wait < 0 || d < wait {
					wait = d
				}
			}
		}
		g.Meter.Wait(wait, g.wake)
	}
}

// events writes what is due now and returns how many that are.
func (g *Guest) events(out []byte) int {
	due := 0
	for _, s := range g.subs {
		var e errno.Errno
		var size uint64
		var flags uint16
		ok := true
		switch s.kind {
		case eventClock:
			ok = g.Monotonic() >= s.at
		case eventRead:
			ok, size, flags, e = g.readable(uint64(s.fd))
		case eventWrite:
			ok, size, flags, e = g.writable(uint64(s.fd))
		}
		if !ok {
			continue
		}
		b := out[due*eventLen:][:eventLen]
		clear(b)
		le.PutUint64(b, s.user)
		le.PutUint16(b[8:], uint16(e))
		b[10] = s.kind
		le.PutUint64(b[16:], size)
		le.PutUint16(b[24:], flags)
		due++
	}
	return due
}

func (g *Guest) readable(fd uint64) (ok bool, size uint64, flags uint16, e errno.Errno) {
	f := g.file(fd)
	switch {
	case f == nil:
		return true, 0, 0, errno.BadFD
	case f.listener != nil:
		f.listener.look()
		return f.listener.waiting(), 1, 0, 0
	case f.conn != nil:
		n, ended := f.conn.in.readable()
		if ended {
			flags = eventHangup
		}
		return n > 0 || ended, uint64(n), flags, 0
	case f.in:
		g.begin()
	}
	return true, 1, 0, 0 // a read of it waits, if it must
}

func (g *Guest) writable(fd uint64) (ok bool, size uint64, flags uint16, e errno.Errno) {
	f := g.file(fd)
	switch {
	case f == nil:
		return true, 0, 0, errno.BadFD
	case f.conn != nil:
		ok, broken := f.conn.out.writable()
		if broken {
			flags = eventHangup
		}
		return ok, maxPipe, flags, 0
	}
	return true, maxPipe, 0, 0
}
