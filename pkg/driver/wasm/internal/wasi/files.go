package wasi

import (
	"peercompute/pkg/driver/wasm/internal/errno"
	"peercompute/pkg/driver/wasm/internal/scratch"
)

// rootName is where guests find their scratch directory.
const rootName = "/"

// plain is a descriptor of a regular file or directory of the scratch directory.
func (g *Guest) plain(fd uint64) (*file, errno.Errno) {
	f := g.file(fd)
	switch {
	case f == nil:
		return nil, errno.BadFD
	case f.node == nil:
		return f, errno.SeekPipe
	}
	return f, 0
}

// dir is a descriptor of a directory.
func (g *Guest) dir(fd uint64) (*scratch.Node, errno.Errno) {
	f := g.file(fd)
	switch {
	case f == nil:
		return nil, errno.BadFD
	case f.node == nil || !f.node.IsDir():
		return nil, errno.NotDir
	}
	return f.node, 0
}

// at is a directory and a path below it, which is how paths are given.
func (g *Guest) at(fd, path, n uint64) (*scratch.Node, string, errno.Errno) {
	d, e := g.dir(fd)
	if e != 0 {
		return nil, "", e
	}
	s, e := g.path(path, n)
	return d, s, e
}

// Two kinds of what is open before a guest begins. WASI names only the first; the
// other says that this is no directory, and yet not the last.
const (
	prestatDir   = 0
	prestatOther = 1
)

func fdPrestatGet(g *Guest, p []uint64) errno.Errno {
	f := g.file(p[0])
	if f == nil || !f.preopened && f.listener == nil {
		return errno.BadFD
	}
	b, ok := g.bytes(p[1], 8)
	if !ok {
		return errno.Fault
	}
	clear(b)
	if f.listener != nil {
		b[0] = prestatOther
		return 0
	}
	b[0] = prestatDir
	le.PutUint32(b[4:], uint32(len(rootName)))
	return 0
}

func fdPrestatDirName(g *Guest, p []uint64) errno.Errno {
	f := g.file(p[0])
	switch {
	case f == nil || !f.preopened:
		return errno.BadFD
	case uint32(p[2]) < uint32(len(rootName)):
		return errno.LongName
	}
	b, ok := g.bytes(p[1], uint64(len(rootName)))
	if !ok {
		return errno.Fault
	}
	copy(b, rootName)
	return 0
}

func fdPread(g *Guest, p []uint64) errno.Errno {
	f, e := g.plain(p[0])
	if e == 0 && !f.canRead {
		e = errno.BadFD
	}
	return g.moveAt(f, e, p, g.Scratch.ReadAt)
}

func fdPwrite(g *Guest, p []uint64) errno.Errno {
	f, e := g.plain(p[0])
	if e == 0 && !f.canWrite {
		e = errno.BadFD
	}
	return g.moveAt(f, e, p, g.Scratch.WriteAt)
}

// moveAt moves the parts that p names at its offset, unless e says that it may not.
func (g *Guest) moveAt(f *file, e errno.Errno, p []uint64, move func(*scratch.Node, []byte, int64) (int, errno.Errno)) errno.Errno {
	if e != 0 {
		return e
	}
	parts, e := g.parts(p[1], p[2])
	if e != 0 {
		return e
	}
	off := int64(p[3])
	n, e := g.each(parts, func(b []byte) (int, errno.Errno) {
		n, e := move(f.node, b, off)
		off += int64(n)
		return n, e
	})
	if e != 0 {
		return e
	}
	return g.put32(p[4], n)
}

func fdSeek(g *Guest, p []uint64) errno.Errno {
	f, e := g.plain(p[0])
	switch {
	case e != 0:
		return e
	case f.node.IsDir():
		return errno.BadFD
	}
	base := int64(0)
	switch byte(p[2]) {
	case 0:
	case 1:
		base = f.at
	case 2:
		base = f.node.Info().Size
	default:
		return errno.Invalid
	}
	to := base + int64(p[1])
	if to < 0 { // also where the sum is too large
		return errno.Invalid
	}
	f.at = to
	return g.put64(p[3], uint64(to))
}

func fdTell(g *Guest, p []uint64) errno.Errno {
	f, e := g.plain(p[0])
	switch {
	case e != 0:
		return e
	case f.node.IsDir():
		return errno.BadFD
	}
	return g.put64(p[1], uint64(f.at))
}

func fdAdvise(g *Guest, p []uint64) errno.Errno {
	_, e := g.plain(p[0])
	return e
}

// fdSync has nothing to do: what is in memory does not get more durable.
func fdSync(g *Guest, p []uint64) errno.Errno {
	if g.file(p[0]) == nil {
		return errno.BadFD
	}
	return 0
}

func fdAllocate(g *Guest, p []uint64) errno.Errno {
	f, e := g.plain(p[0])
	switch {
	case e != 0:
		return e
	case !f.canWrite:
		return errno.BadFD
	}
	end := int64(p[1]) + int64(p[2])
	switch {
	case int64(p[1]) < 0 || int64(p[2]) <= 0 || end < 0:
		return errno.Invalid
	case end <= f.node.Info().Size:
		return 0
	}
	return g.resize(f.node, end)
}

func fdFilestatSetSize(g *Guest, p []uint64) errno.Errno {
	f, e := g.plain(p[0])
	switch {
	case e != 0:
		return e
	case !f.canWrite:
		return errno.BadFD
	}
	return g.resize(f.node, int64(p[1]))
}

// resize charges for what is to be filled with zeros, as far as that can be.
func (g *Guest) resize(n *scratch.Node, size int64) errno.Errno {
	if more := size - n.Info().Size; more > 0 && size <= g.Scratch.Size() {
		g.Meter.Charge(uint64(more) / perUnit)
	}
	return g.Scratch.Truncate(n, size)
}

func (g *Guest) putStat(at uint64, kind byte, i scratch.Info) errno.Errno {
	b, ok := g.bytes(at, 64)
	if !ok {
		return errno.Fault
	}
	le.PutUint64(b, 1) // device
	le.PutUint64(b[8:], i.Ino)
	le.PutUint64(b[16:], uint64(kind))
	le.PutUint64(b[24:], uint64(i.Links))
	le.PutUint64(b[32:], uint64(i.Size))
	le.PutUint64(b[40:], uint64(i.Accessed))
	le.PutUint64(b[48:], uint64(i.Modified))
	le.PutUint64(b[56:], uint64(i.Changed))
	return 0
}

func kindOf(k scratch.Kind) byte {
	switch k {
	case scratch.Dir:
		return typeDir
	case scratch.Symlink:
		return typeSymlink
	}
	return typeFile
}

func fdFilestatGet(g *Guest, p []uint64) errno.Errno {
	f := g.file(p[0])
	switch {
	case f == nil:
		return errno.BadFD
	case f.node == nil:
		return g.putStat(p[1], f.kind(), scratch.Info{Links: 1})
	}
	return g.putStat(p[1], f.kind(), f.node.Info())
}

// followed reports whether a symbolic link at the end of a path is followed.
func followed(flags uint64) bool { return flags&1 != 0 }

func pathFilestatGet(g *Guest, p []uint64) errno.Errno {
	d, path, e := g.at(p[0], p[2], p[3])
	if e != 0 {
		return e
	}
	i, e := g.Scratch.Stat(d, path, followed(p[1]))
	if e != 0 {
		return e
	}
	return g.putStat(p[4], kindOf(i.Kind), i)
}

// times are the two that are to be set; nil leaves one as it is.
func (g *Guest) times(accessed, modified, flags uint64) (a, m *int64, e errno.Errno) {
	const setA, nowA, setM, nowM = 1, 2, 4, 8
	pick := func(set, now, v uint64) *int64 {
		switch {
		case flags&set != 0 && flags&now != 0:
			e = errno.Invalid
		case flags&set != 0:
			t := int64(v)
			return &t
		case flags&now != 0:
			t := g.Wall()
			return &t
		}
		return nil
	}
	a, m = pick(setA, nowA, accessed), pick(setM, nowM, modified)
	return a, m, e
}

func fdFilestatSetTimes(g *Guest, p []uint64) errno.Errno {
	f, e := g.plain(p[0])
	if e != 0 {
		return e
	}
	a, m, e := g.times(p[1], p[2], p[3])
	if e == 0 {
		g.Scratch.SetTimes(f.node, a, m)
	}
	return e
}

func pathFilestatSetTimes(g *Guest, p []uint64) errno.Errno {
	d, path, e := g.at(p[0], p[2], p[3])
	if e != 0 {
		return e
	}
	a, m, e := g.times(p[4], p[5], p[6])
	if e != 0 {
		return e
	}
	n, e := g.Scratch.Lookup(d, path, followed(p[1]))
	if e == 0 {
		g.Scratch.SetTimes(n, a, m)
	}
	return e
}
