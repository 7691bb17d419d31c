package scratch

import "peercompute/pkg/driver/wasm/internal/errno"

// The bytes of files. Each file has whole blocks of the region, in any order.

func (fs *FS) block(i uint32) []byte {
	at := int64(i) * blockSize
	return fs.region[at : at+blockSize : at+blockSize]
}

// take is a block full of zeros.
func (fs *FS) take() (uint32, errno.Errno) {
	if n := len(fs.free); n > 0 {
		i := fs.free[n-1]
		fs.free = fs.free[:n-1]
		clear(fs.block(i))
		return i, 0
	}
	end := int64(fs.next+1) * blockSize
	if end > int64(len(fs.region)) {
		return 0, errno.NoSpace
	}
	if end > fs.held {
		step := min(reserveStep, int64(len(fs.region))-fs.held)
		if !fs.cfg.Reserve(step) {
			return 0, errno.NoSpace
		}
		fs.held += step
	}
	fs.next++
	return fs.next - 1, 0
}

// extend makes n at least size bytes long, with zeros. What did not fit is left off.
func (fs *FS) extend(n *Node, size int64) errno.Errno {
	if size > int64(len(fs.region)) {
		return errno.FileBig
	}
	for int64(len(n.blocks))*blockSize < size {
		b, e := fs.take()
		if e != 0 {
			n.size = max(n.size, int64(len(n.blocks))*blockSize)
			return e
		}
		n.blocks = append(n.blocks, b)
	}
	n.size = max(n.size, size)
	return 0
}

// shrink cuts n to size bytes and frees what is behind.
func (fs *FS) shrink(n *Node, size int64) {
	keep := int((size + blockSize - 1) / blockSize)
	if keep < len(n.blocks) {
		fs.free = append(fs.free, n.blocks[keep:]...)
		n.blocks = n.blocks[:keep]
		if keep == 0 {
			n.blocks = nil
		}
	}
	if within := size % blockSize; within > 0 {
		clear(fs.block(n.blocks[keep-1])[within:]) // zeros, if it grows again
	}
	n.size = size
}

// Truncate makes a file size bytes long.
func (fs *FS) Truncate(n *Node, size int64) errno.Errno {
	switch {
	case n.kind == Dir:
		return errno.IsDir
	case n.kind != File, size < 0:
		return errno.Invalid
	case size < n.size:
		fs.shrink(n, size)
	case size > n.size:
		before := n.size
		if e := fs.extend(n, size); e != 0 {
			fs.shrink(n, before) // all or nothing
			return e
		}
	}
	fs.touch(n)
	return 0
}

// ReadAt reads from off and returns how many bytes there were; none at the end.
func (fs *FS) ReadAt(n *Node, p []byte, off int64) (int, errno.Errno) {
	switch {
	case n.kind == Dir:
		return 0, errno.IsDir
	case n.kind != File, off < 0:
		return 0, errno.Invalid
	case off >= n.size:
		return 0, 0
	}
	p = p[:min(int64(len(p)), n.size-off)]
	done := 0
	for done < len(p) {
		at := off + int64(done)
		done += copy(p[done:], fs.block(n.blocks[at/blockSize])[at%blockSize:])
	}
	n.accessed = fs.cfg.Now()
	return done, 0
}

// WriteAt writes at off, with zeros before it if the file ends there. It writes as
// much as there is room for, and fails only if that is nothing.
func (fs *FS) WriteAt(n *Node, p []byte, off int64) (int, errno.Errno) {
	switch {
	case n.kind == Dir:
		return 0, errno.IsDir
	case n.kind != File, off < 0:
		return 0, errno.Invalid
	case len(p) == 0:
		return 0, 0
	case off > int64(len(fs.region)):
		return 0, errno.FileBig
	}
	before := n.size
	end := min(off+int64(len(p)), int64(len(fs.region)))
	e := fs.extend(n, end)
	if n.size <= off { // not one byte of it fits
		fs.shrink(n, before)
		if e == 0 {
			e = errno.NoSpace
		}
		return 0, e
	}
	p = p[:min(int64(len(p)), n.size-off)]
	done := 0
	for done < len(p) {
		at := off + int64(done)
		done += copy(fs.block(n.blocks[at/blockSize])[at%blockSize:], p[done:])
	}
	fs.touch(n)
	return done, 0
}
