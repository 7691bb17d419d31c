package wasi

import (
	"errors"
	"io"

	"peercompute/pkg/driver/wasm/internal/errno"
	"peercompute/pkg/driver/wasm/internal/scratch"
)

// file is what a descriptor stands for: one of the standard streams, a node of the
// scratch directory, a listener, or a connection.
type file struct {
	in    bool // standard input
	out   io.Writer
	begin bool // out is the answer to the request

	node      *scratch.Node
	preopened bool
	at        int64 // where the next read or write is
	canRead   bool
	canWrite  bool

	listener *Listener
	conn     *Conn

	flags uint16
}

// Flags of descriptors that mean something here.
const (
	flagAppend   = 1
	flagNonblock = 4
)

// The kinds of file, as WASI has them.
const (
	typeUnknown  = 0
	typeDir      = 3
	typeFile     = 4
	typeSocket   = 6
	typeSymlink  = 7
	allRights    = 1<<30 - 1
	rightFDRead  = 1 << 1
	rightFDSeek  = 1 << 2
	rightFDTell  = 1 << 5
	rightFDWrite = 1 << 6
)

// maxFiles bounds the open descriptors of one guest.
const maxFiles = 2048

// FirstFD is the first descriptor after the standard streams: the listener if
// there is one, as LISTEN_FDS has it, and then the scratch directory.
const FirstFD = 3

func (g *Guest) open() {
	g.files = append(g.files[:0], &file{in: true}, &file{out: g.Stdout, begin: true}, &file{out: g.Stderr})
	if g.Listener != nil {
		g.files = append(g.files, &file{listener: g.Listener})
	}
	if g.Scratch != nil {
		root := g.Scratch.Root()
		root.Open()
		g.files = append(g.files, &file{node: root, preopened: true, canRead: true})
	}
	g.wake = make(chan struct{}, 1)
	if g.Listener != nil {
		g.Listener.attach(g.wake)
	}
}

// file is what descriptor fd stands for, or nil.
func (g *Guest) file(fd uint64) *file {
	if i := uint32(fd); i < uint32(len(g.files)) {
		return g.files[i]
	}
	return nil
}

// add gives f the lowest free number.
func (g *Guest) add(f *file) (uint32, errno.Errno) {
	for i := FirstFD; i < len(g.files); i++ {
		if g.files[i] == nil {
			g.files[i] = f
			return uint32(i), 0
		}
	}
	if len(g.files) >= maxFiles {
		return 0, errno.ManyFiles
	}
	g.files = append(g.files, f)
	return uint32(len(g.files) - 1), 0
}

func (g *Guest) close(fd int) errno.Errno {
	f := g.files[fd]
	if f == nil {
		return errno.BadFD
	}
	g.files[fd] = nil
	switch {
	case f.node != nil:
		g.Scratch.Release(f.node)
	case f.conn != nil:
		f.conn.close()
	case f.listener != nil:
		f.listener.close()
	}
	return 0
}

func fdClose(g *Guest, p []uint64) errno.Errno {
	if g.file(p[0]) == nil {
		return errno.BadFD
	}
	return g.close(int(uint32(p[0])))
}

func fdRenumber(g *Guest, p []uint64) errno.Errno {
	from, to := g.file(p[0]), g.file(p[1])
	switch {
	case from == nil || to == nil:
		return errno.BadFD
	case from == to:
		return 0
	}
	_ = g.close(int(uint32(p[1])))
	g.files[uint32(p[1])], g.files[uint32(p[0])] = from, nil
	return 0
}

func (f *file) kind() byte {
	switch {
	case f.node != nil && f.node.IsDir():
		return typeDir
	case f.node != nil:
		return typeFile
	case f.listener != nil || f.conn != nil:
		return typeSocket
	}
	return typeUnknown // a pipe has no kind of its own
}

func fdStatGet(g *Guest, p []uint64) errno.Errno {
	f := g.file(p[0])
	if f == nil {
		return errno.BadFD
	}
	b, ok := g.bytes(p[1], 24)
	if !ok {
		return errno.Fault
	}
	clear(b)
	b[0] = f.kind()
	le.PutUint16(b[2:], f.flags)
	rights := uint64(allRights)
	switch {
	case f.node == nil:
		rights &^= rightFDSeek | rightFDTell
	case !f.node.IsDir():
		if !f.canRead {
			rights &^= rightFDRead
		}
		if !f.canWrite {
			rights &^= rightFDWrite
		}
	}
	le.PutUint64(b[8:], rights)
	le.PutUint64(b[16:], allRights)
	return 0
}

func fdStatSetFlags(g *Guest, p []uint64) errno.Errno {
	f := g.file(p[0])
	if f == nil {
		return errno.BadFD
	}
	f.flags = uint16(p[1]) & (flagAppend | flagNonblock)
	return 0
}

func fdStatSetRights(g *Guest, p []uint64) errno.Errno {
	if g.file(p[0]) == nil {
		return errno.BadFD
	}
	return 0 // rights are not told apart; to give some up changes nothing
}

func fdRead(g *Guest, p []uint64) errno.Errno {
	f := g.file(p[0])
	if f == nil {
		return errno.BadFD
	}
	parts, e := g.parts(p[1], p[2])
	if e != 0 {
		return e
	}
	n, e := g.read(f, parts)
	if e != 0 {
		return e
	}
	return g.put32(p[3], n)
}

func (g *Guest) read(f *file, parts [][]byte) (uint32, errno.Errno) {
	switch {
	case f.in:
		g.begin()
		if len(parts) == 0 || g.Stdin == nil {
			return 0, 0
		}
		return g.each(parts[:1], func(b []byte) (int, errno.Errno) { // not more than one wait
			n, err := g.Stdin.Read(b)
			if err != nil && !errors.Is(err, io.EOF) && n == 0 {
				return 0, errno.IO
			}
			return n, 0
		})
	case f.conn != nil:
		return g.receive(f, parts)
	case f.node != nil && f.canRead:
		return g.each(parts, func(b []byte) (int, errno.Errno) {
			n, e := g.Scratch.ReadAt(f.node, b, f.at)
			f.at += int64(n)
			return n, e
		})
	}
	return 0, errno.BadFD
}

func fdWrite(g *Guest, p []uint64) errno.Errno {
	f := g.file(p[0])
	if f == nil {
		return errno.BadFD
	}
	parts, e := g.parts(p[1], p[2])
	if e != 0 {
		return e
	}
	n, e := g.write(f, parts)
	if e != 0 {
		return e
	}
	return g.put32(p[3], n)
}

func (g *Guest) write(f *file, parts [][]byte) (uint32, errno.Errno) {
	switch {
	case f.out != nil || f.begin:
		if f.begin {
			g.begin()
			f.out = g.Stdout
		}
		return g.each(parts, func(b []byte) (int, errno.Errno) {
			n, err := f.out.Write(b)
			if err != nil {
				return n, errno.IO
			}
			return n, 0
		})
	case f.conn != nil:
		return g.send(f, parts)
	case f.node != nil && f.canWrite:
		return g.each(parts, func(b []byte) (int, errno.Errno) {
			if f.flags&flagAppend != 0 {
				f.at = f.node.Info().Size
			}
			n, e := g.Scratch.WriteAt(f.node, b, f.at)
			f.at += int64(n)
			return n, e
		})
	}
	return 0, errno.BadFD
}
