// Package scratch is a private file system in memory for one run of one guest. Its
// bytes and its files are capped, nothing of it lies on a disk, nothing outside it
// can be named, and it is gone when it is closed.
//
// Files have no holes: what a file's size says is there takes room, so that the cap
// is a cap on memory, tables included. An FS is used by one goroutine at a time.
package scratch

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"peercompute/pkg/driver/wasm/internal/errno"
)

// Bounds of names and of the walk along them.
const (
	MaxPath = 4096 // bytes of a path
	MaxName = 255  // bytes of one name in it
	maxText = 1024 // bytes of what a symbolic link says
	maxLink = 32   // symbolic links followed on the way to one file
)

// Kind is what a node is.
type Kind uint8

// The kinds of node.
const (
	File Kind = iota
	Dir
	Symlink
)

// Config is what New needs.
type Config struct {
	Bytes   int64            // that files may take, rounded up to whole blocks
	Reserve func(int64) bool // asked before memory is used, in bytes; nil = always granted
	Release func(int64)      // told when it is given back
	Now     func() int64     // for the times of files, ns since 1970
}

// FS is the file system. Close it.
type FS struct {
	cfg    Config
	region []byte // address space of all blocks; pages that were never written do not exist
	next   uint32 // the first block that was never used
	free   []uint32
	held   int64 // bytes reserved
	nodes  int   // that exist
	names  int   // that lead to them
	most   int   // nodes, and names
	serial uint64
	root   *Node
}

const (
	blockSize   = 4096
	reserveStep = 16 * blockSize
	minNodes    = 64
	maxNodes    = 8192
)

// Node is a file, a directory or a symbolic link.
type Node struct {
	kind  Kind
	ino   uint64
	names int // directory entries that lead here
	opens int // descriptors

	accessed, modified, changed int64 // ns since 1970

	size   int64 // of a file, bytes
	blocks []uint32

	entries map[string]*entry // of a directory
	order   []*entry          // by cookie
	cookies uint64
	parent  *Node

	target string // of a symbolic link
}

// entry is a name in a directory. Its cookie is where a listing goes on after it.
type entry struct {
	name   string
	node   *Node
	cookie uint64
}

// Info is what is known of a node.
type Info struct {
	Kind                        Kind
	Ino                         uint64
	Links                       int
	Size                        int64 // bytes
	Accessed, Modified, Changed int64 // ns since 1970
}

// New makes an empty file system.
func New(c Config) (*FS, error) {
	if c.Bytes <= 0 {
		return nil, fmt.Errorf("a scratch directory of %d bytes", c.Bytes)
	}
	if c.Reserve == nil {
		c.Reserve, c.Release = func(int64) bool { return true }, func(int64) {}
	}
	if c.Now == nil {
		c.Now = func() int64 { return 0 }
	}
	c.Bytes = (c.Bytes + blockSize - 1) / blockSize * blockSize
	region, err := unix.Mmap(-1, 0, int(c.Bytes), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("cannot make a scratch directory: %w", err)
	}
	fs := &FS{cfg: c, region: region, most: int(min(maxNodes, max(minNodes, c.Bytes/(2*blockSize))))}
	fs.root = fs.node(Dir)
	fs.root.names, fs.root.parent = 1, fs.root
	return fs, nil
}

// Close gives all memory back. Nothing of the file system may be used after it.
func (fs *FS) Close() {
	if fs.region == nil {
		return
	}
	// Fails only for a range that is not mapped, which would be our own fault.
	if err := unix.Munmap(fs.region); err != nil {
		panic(err)
	}
	fs.region = nil
	fs.cfg.Release(fs.held)
	fs.held = 0
}

// Root is the top directory.
func (fs *FS) Root() *Node { return fs.root }

// Used is how many bytes files take now.
func (fs *FS) Used() int64 { return int64(fs.next-uint32(len(fs.free))) * blockSize }

// node makes a node that no name leads to yet; nil if there are too many.
func (fs *FS) node(k Kind) *Node {
	if fs.nodes >= fs.most {
		return nil
	}
	fs.nodes++
	fs.serial++
	now := fs.cfg.Now()
	n := &Node{kind: k, ino: fs.serial, accessed: now, modified: now, changed: now}
	if k == Dir {
		n.entries = map[string]*entry{}
		n.cookies = firstCookie
	}
	return n
}

// firstCookie leaves room for a directory's names for itself and its parent.
const firstCookie = 2

// drop frees a node that neither a name nor a descriptor leads to.
func (fs *FS) drop(n *Node) {
	if n.names > 0 || n.opens > 0 {
		return
	}
	fs.nodes--
	fs.shrink(n, 0)
}

// Open counts a descriptor of n, so that n outlives its names.
func (n *Node) Open() { n.opens++ }

// Release ends what Open began.
func (fs *FS) Release(n *Node) {
	n.opens--
	fs.drop(n)
}

// IsDir reports whether n is a directory.
func (n *Node) IsDir() bool { return n.kind == Dir }

// Info is what is known of n.
func (n *Node) Info() Info {
	i := Info{Kind: n.kind, Ino: n.ino, Links: n.names, Size: n.size, Accessed: n.accessed, Modified: n.modified, Changed: n.changed}
	if n.kind == Symlink {
		i.Size = int64(len(n.target))
	}
	return i
}

// SetTimes sets those that are not nil, in ns since 1970.
func (fs *FS) SetTimes(n *Node, accessed, modified *int64) {
	if accessed != nil {
		n.accessed = *accessed
	}
	if modified != nil {
		n.modified = *modified
	}
	n.changed = fs.cfg.Now()
}

// place is where a path leads: node, if there is one, called name in dir. A path
// that ends in "." or ".." has a node and no name.
type place struct {
	dir   *Node
	name  string
	node  *Node
	isDir bool // the path ends with a slash
}

// find walks along path from at. A symbolic link at its end is followed only if
// follow says so. Nothing leads above the root.
func (fs *FS) find(at *Node, path string, follow bool) (place, errno.Errno) {
	if e := checkPath(path); e != 0 {
		return place{}, e
	}
	if at.kind != Dir {
		return place{}, errno.NotDir
	}
	links := 0
	dir := at
	for {
		name, rest := split(path)
		switch {
		case name == "":
			return place{node: dir, isDir: true}, 0
		case len(name) > MaxName:
			return place{}, errno.LongName
		case name == "..":
			if dir == fs.root {
				return place{}, errno.NotCapable
			}
			dir = dir.parent
			path = rest
			continue
		}
		var n *Node
		if e := dir.entries[name]; e != nil {
			n = e.node
		}
		last := strings.Trim(rest, "/") == ""
		slash := rest != ""
		switch {
		case n != nil && n.kind == Symlink && (!last || follow || slash):
			if links++; links > maxLink {
				return place{}, errno.Loop
			}
			path = n.target + rest
			if e := checkPath(path); e != 0 {
				return place{}, e
			}
			continue
		case last:
			if slash && n != nil && n.kind != Dir {
				return place{}, errno.NotDir
			}
			return place{dir: dir, name: name, node: n, isDir: slash}, 0
		case n == nil:
			return place{}, errno.NoEntry
		case n.kind != Dir:
			return place{}, errno.NotDir
		}
		dir, path = n, rest
	}
}

func checkPath(path string) errno.Errno {
	switch {
	case path == "":
		return errno.NoEntry
	case len(path) > MaxPath:
		return errno.LongName
	case path[0] == '/':
		return errno.NotCapable
	case strings.IndexByte(path, 0) >= 0:
		return errno.Invalid
	}
	return 0
}

// split takes the first name off a path; "." counts for nothing. rest begins with
// a slash unless it is empty.
func split(path string) (name, rest string) {
	for {
		path = strings.TrimLeft(path, "/")
		end := strings.IndexByte(path, '/')
		if end < 0 {
			end = len(path)
		}
		name, rest = path[:end], path[end:]
		if name != "." {
			return name, rest
		}
		path = rest
	}
}

// must is find for what has to exist.
func (fs *FS) must(at *Node, path string, follow bool) (place, errno.Errno) {
	p, e := fs.find(at, path, follow)
	if e == 0 && p.node == nil {
		e = errno.NoEntry
	}
	return p, e
}

// fresh is find for a name that must not exist yet.
func (fs *FS) fresh(at *Node, path string) (place, errno.Errno) {
	p, e := fs.find(at, path, false)
	switch {
	case e != 0:
		return p, e
	case p.node != nil:
		return p, errno.Exist
	case p.dir.names == 0:
		return p, errno.NoEntry // the directory was removed
	}
	return p, 0
}

// Size is how many bytes all files together may take.
func (fs *FS) Size() int64 { return int64(len(fs.region)) }
