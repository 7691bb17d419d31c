package scratch

import (
	"cmp"
	"slices"

	"peercompute/pkg/driver/wasm/internal/errno"
)

// How is what Open may do beside opening.
type How struct {
	Follow    bool // a symbolic link at the end of the path
	Create    bool // a file that is not there
	Exclusive bool // and fail if something is
	Truncate  bool
	Directory bool // fail if it is none
}

// Open finds or makes the file or directory at path. The caller calls Open of the
// node if it keeps it.
func (fs *FS) Open(at *Node, path string, how How) (*Node, errno.Errno) {
	p, e := fs.find(at, path, how.Follow && !(how.Create && how.Exclusive))
	if e != 0 {
		return nil, e
	}
	n := p.node
	switch {
	case n == nil && !how.Create:
		return nil, errno.NoEntry
	case n == nil && (p.isDir || how.Directory):
		return nil, errno.Invalid // a directory is not made by opening it
	case n == nil:
		return fs.create(p, File)
	case how.Create && how.Exclusive:
		return nil, errno.Exist
	case n.kind == Symlink:
		return nil, errno.Loop
	case how.Directory && n.kind != Dir:
		return nil, errno.NotDir
	case how.Truncate && n.kind == Dir:
		return nil, errno.IsDir
	case how.Truncate:
		return n, fs.Truncate(n, 0)
	}
	return n, 0
}

// create makes a node at a place where none is.
func (fs *FS) create(p place, k Kind) (*Node, errno.Errno) {
	if p.dir.names == 0 {
		return nil, errno.NoEntry // the directory was removed
	}
	if fs.names >= fs.most {
		return nil, errno.NoSpace
	}
	n := fs.node(k)
	if n == nil {
		return nil, errno.NoSpace
	}
	if k == Dir {
		n.parent = p.dir
	}
	fs.link(p, n)
	return n, 0
}

func (fs *FS) link(p place, n *Node) {
	p.dir.cookies++
	e := &entry{p.name, n, p.dir.cookies}
	p.dir.entries[p.name] = e
	p.dir.order = append(p.dir.order, e)
	n.names++
	fs.names++
	fs.touch(p.dir)
	n.changed = fs.cfg.Now()
}

func (fs *FS) unlink(p place) {
	e := p.dir.entries[p.name]
	delete(p.dir.entries, p.name)
	i := p.dir.after(e.cookie - 1)
	p.dir.order = slices.Delete(p.dir.order, i, i+1)
	e.node.names--
	fs.names--
	fs.touch(p.dir)
	e.node.changed = fs.cfg.Now()
	fs.drop(e.node)
}

// after is the index of the first entry behind a cookie.
func (n *Node) after(cookie uint64) int {
	i, _ := slices.BinarySearchFunc(n.order, cookie+1, func(e *entry, c uint64) int { return cmp.Compare(e.cookie, c) })
	return i
}

func (fs *FS) touch(n *Node) {
	n.modified = fs.cfg.Now()
	n.changed = n.modified
}

// Stat is what is known of the node at path.
func (fs *FS) Stat(at *Node, path string, follow bool) (Info, errno.Errno) {
	n, e := fs.Lookup(at, path, follow)
	if e != 0 {
		return Info{}, e
	}
	return n.Info(), 0
}

// Lookup is the node at path.
func (fs *FS) Lookup(at *Node, path string, follow bool) (*Node, errno.Errno) {
	p, e := fs.must(at, path, follow)
	return p.node, e
}

// Mkdir makes a directory.
func (fs *FS) Mkdir(at *Node, path string) errno.Errno {
	p, e := fs.fresh(at, path)
	if e != 0 {
		return e
	}
	_, e = fs.create(p, Dir)
	return e
}

// Rmdir removes an empty directory.
func (fs *FS) Rmdir(at *Node, path string) errno.Errno {
	p, e := fs.must(at, path, false)
	switch {
	case e != 0:
		return e
	case p.node.kind != Dir:
		return errno.NotDir
	case p.name == "":
		return errno.Invalid // "." and "..", and with them the root
	case len(p.node.entries) > 0:
		return errno.NotEmpty
	}
	fs.unlink(p)
	return 0
}

// Unlink removes a name of a file or of a symbolic link.
func (fs *FS) Unlink(at *Node, path string) errno.Errno {
	p, e := fs.must(at, path, false)
	switch {
	case e != 0:
		return e
	case p.node.kind == Dir:
		return errno.IsDir
	}
	fs.unlink(p)
	return 0
}

// Symlink makes a symbolic link that says target, which need not exist.
func (fs *FS) Symlink(target string, at *Node, path string) errno.Errno {
	if e := checkPath(target); e != 0 {
		return e
	}
	if len(target) > maxText {
		return errno.LongName
	}
	p, e := fs.fresh(at, path)
	switch {
	case e != 0:
		return e
	case p.isDir:
		return errno.NoEntry
	}
	n, e := fs.create(p, Symlink)
	if e == 0 {
		n.target = target
	}
	return e
}

// Readlink is what a symbolic link says.
func (fs *FS) Readlink(at *Node, path string) (string, errno.Errno) {
	p, e := fs.must(at, path, false)
	switch {
	case e != 0:
		return "", e
	case p.node.kind != Symlink:
		return "", errno.Invalid
	}
	return p.node.target, 0
}

// Link gives a file another name.
func (fs *FS) Link(from *Node, old string, follow bool, to *Node, path string) errno.Errno {
	o, e := fs.must(from, old, follow)
	switch {
	case e != 0:
		return e
	case o.node.kind == Dir:
		return errno.NotAllowed
	}
	p, e := fs.fresh(to, path)
	switch {
	case e != 0:
		return e
	case p.isDir:
		return errno.NoEntry
	case fs.names >= fs.most:
		return errno.NoSpace
	}
	fs.link(p, o.node)
	return 0
}

// Rename moves what is at old to path, in place of what is there.
func (fs *FS) Rename(from *Node, old string, to *Node, path string) errno.Errno {
	o, e := fs.must(from, old, false)
	if e != 0 {
		return e
	}
	p, e := fs.find(to, path, false)
	switch {
	case e != 0:
		return e
	case o.name == "" || p.name == "":
		return errno.Invalid
	case p.dir.names == 0:
		return errno.NoEntry
	case p.node == o.node:
		return 0
	case o.node.kind != Dir && p.isDir:
		return errno.NotDir
	}
	if o.node.kind == Dir {
		for d := p.dir; ; d = d.parent { // it cannot move into itself
			if d == o.node {
				return errno.Invalid
			}
			if d == fs.root {
				break
			}
		}
	}
	if p.node != nil {
		switch {
		case o.node.kind == Dir && p.node.kind != Dir:
			return errno.NotDir
		case o.node.kind != Dir && p.node.kind == Dir:
			return errno.IsDir
		case len(p.node.entries) > 0:
			return errno.NotEmpty
		}
		fs.unlink(p)
	}
	n := o.node
	n.names++ // held while it has no name
	fs.unlink(o)
	fs.link(p, n)
	n.names--
	if n.kind == Dir {
		n.parent = p.dir
	}
	return 0
}

// Entry is one name of a directory's listing.
type Entry struct {
	Name string
	Node *Node
	Next uint64 // the cookie to go on after it
}

// Read is the first entry of a directory behind a cookie; zero begins.
func (n *Node) Read(cookie uint64) (Entry, bool) {
	switch cookie {
	case 0:
		return Entry{".", n, 1}, true
	case 1:
		return Entry{"..", n.parent, firstCookie}, true
	}
	i := n.after(cookie)
	if i == len(n.order) {
		return Entry{}, false
	}
	e := n.order[i]
	return Entry{e.name, e.node, e.cookie}, true
}
