package wasi

import (
	"peercompute/pkg/driver/wasm/internal/errno"
	"peercompute/pkg/driver/wasm/internal/scratch"
)

func pathOpen(g *Guest, p []uint64) errno.Errno {
	const create, directory, exclusive, truncate = 1, 2, 4, 8
	d, path, e := g.at(p[0], p[2], p[3])
	if e != 0 {
		return e
	}
	o := p[4]
	how := scratch.How{
		Follow: followed(p[1]), Create: o&create != 0, Directory: o&directory != 0,
		Exclusive: o&exclusive != 0, Truncate: o&truncate != 0,
	}
	f := &file{flags: uint16(p[7]) & (flagAppend | flagNonblock), canWrite: p[5]&rightFDWrite != 0}
	f.canRead = p[5]&rightFDRead != 0 || !f.canWrite
	n, e := g.Scratch.Open(d, path, how)
	if e != 0 {
		return e
	}
	if n.IsDir() {
		if f.canWrite && !how.Directory {
			return errno.IsDir
		}
		f.canRead, f.canWrite = true, false
	}
	n.Open()
	f.node = n
	fd, e := g.add(f)
	if e != 0 {
		g.Scratch.Release(n)
		return e
	}
	return g.put32(p[8], fd)
}

func pathCreateDirectory(g *Guest, p []uint64) errno.Errno {
	d, path, e := g.at(p[0], p[1], p[2])
	if e != 0 {
		return e
	}
	return g.Scratch.Mkdir(d, path)
}

func pathRemoveDirectory(g *Guest, p []uint64) errno.Errno {
	d, path, e := g.at(p[0], p[1], p[2])
	if e != 0 {
		return e
	}
	return g.Scratch.Rmdir(d, path)
}

func pathUnlinkFile(g *Guest, p []uint64) errno.Errno {
	d, path, e := g.at(p[0], p[1], p[2])
	if e != 0 {
		return e
	}
	return g.Scratch.Unlink(d, path)
}

func pathLink(g *Guest, p []uint64) errno.Errno {
	from, old, e := g.at(p[0], p[2], p[3])
	if e != 0 {
		return e
	}
	to, path, e := g.at(p[4], p[5], p[6])
	if e != 0 {
		return e
	}
	return g.Scratch.Link(from, old, followed(p[1]), to, path)
}

func pathRename(g *Guest, p []uint64) errno.Errno {
	from, old, e := g.at(p[0], p[1], p[2])
	if e != 0 {
		return e
	}
	to, path, e := g.at(p[3], p[4], p[5])
	if e != 0 {
		return e
	}
	return g.Scratch.Rename(from, old, to, path)
}

func pathSymlink(g *Guest, p []uint64) errno.Errno {
	target, e := g.path(p[0], p[1])
	if e != 0 {
		return e
	}
	d, path, e := g.at(p[2], p[3], p[4])
	if e != 0 {
		return e
	}
	return g.Scratch.Symlink(target, d, path)
}

func pathReadlink(g *Guest, p []uint64) errno.Errno {
	d, path, e := g.at(p[0], p[1], p[2])
	if e != 0 {
		return e
	}
	target, e := g.Scratch.Readlink(d, path)
	if e != 0 {
		return e
	}
	b, ok := g.bytes(p[3], uint64(min(uint32(p[4]), uint32(len(target)))))
	if !ok {
		return errno.Fault
	}
	return g.put32(p[5], uint32(copy(b, target)))
}

// entryLen is the length of a directory entry without its name.
const entryLen = 24

// fdReaddir fills a buffer with entries. The last may be cut off, which tells the
// guest that there are more.
func fdReaddir(g *Guest, p []uint64) errno.Errno {
	d, e := g.dir(p[0])
	if e != 0 {
		return e
	}
	b, ok := g.bytes(p[1], p[2])
	if !ok {
		return errno.Fault
	}
	used := 0
	var entry [entryLen + scratch.MaxName]byte
	for cookie := p[3]; used < len(b); {
		x, ok := d.Read(cookie)
		if !ok {
			break
		}
		g.Meter.Charge(entryLen)
		i := x.Node.Info()
		le.PutUint64(entry[:], x.Next)
		le.PutUint64(entry[8:], i.Ino)
		le.PutUint32(entry[16:], uint32(len(x.Name)))
		le.PutUint32(entry[20:], uint32(kindOf(i.Kind)))
		n := copy(entry[entryLen:], x.Name)
		used += copy(b[used:], entry[:entryLen+n])
		cookie = x.Next
	}
	return g.put32(p[4], uint32(used))
}
