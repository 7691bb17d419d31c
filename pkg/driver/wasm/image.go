package wasm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// image is the memory of a module as an instance finds it at its start: what its
// data segments say, laid out once in a file without a name. Instances map it
// privately, so that they share what they do not write and copy only what they do.
// A Go program has thousands of segments; to copy them for each request took twice
// the time of the request itself.
type image struct {
	f        *os.File
	size     int64  // bytes, a multiple of the page size of WebAssembly
	pristine []byte // the same, to compare with
}

const (
	wasmPage = 64 << 10
	// maxImage bounds the file, which has holes where a module has no data.
	maxImage = 256 << 20
)

// takeImage moves the data segments of a valid module into an image in dir. It
// returns the module unchanged, and no image, if they must be left to the runtime:
// if they are referred to by number, are placed by other than constants, or do not
// fit into the memory, which fails the module's start.
func takeImage(dir string, code []byte) (rest []byte, img *image, err error) {
	segments, rest, ok := splitData(code)
	if !ok || len(segments) == 0 {
		return code, nil, nil
	}
	f, err := os.CreateTemp(dir, "image*.tmp")
	if err != nil {
		return nil, nil, fmt.Errorf("cannot lay out a module's memory: %w", err)
	}
	img = &image{f: f}
	err = os.Remove(f.Name())
	for _, s := range segments {
		if err != nil {
			break
		}
		_, err = f.WriteAt(s.bytes, s.offset)
		img.size = max(img.size, s.end())
	}
	img.size = (img.size + wasmPage - 1) / wasmPage * wasmPage
	if err == nil {
		err = f.Truncate(img.size)
	}
	if err == nil && img.size > 0 {
		img.pristine, err = unix.Mmap(int(f.Fd()), 0, int(img.size), unix.PROT_READ, unix.MAP_SHARED)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("cannot lay out a module's memory: %w", err), f.Close())
	}
	return rest, img, nil
}

// close gives the file up; mappings of it stay. The nil image is none.
func (i *image) close() error {
	if i == nil {
		return nil
	}
	if i.pristine != nil {
		unmap(i.pristine)
		i.pristine = nil
	}
	return i.f.Close()
}

// mapOver puts the image at the beginning of pages, which belong to a mapping.
func (i *image) mapOver(pages []byte) error {
	if i == nil || i.size == 0 {
		return nil
	}
	at := unsafe.Pointer(unsafe.SliceData(pages))
	_, err := unix.MmapPtr(int(i.f.Fd()), 0, at, uintptr(i.size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED)
	return err
}

// segment is an active data segment.
type segment struct {
	offset int64
	bytes  []byte
}

func (s segment) end() int64 { return s.offset + int64(len(s.bytes)) }

// The sections of a module that say where its data goes.
const (
	sectionCustom    = 0
	sectionMemory    = 5
	sectionData      = 11
	sectionDataCount = 12
)

// splitData separates a module's data segments from the rest of it.
func splitData(code []byte) (segments []segment, rest []byte, ok bool) {
	const header = 8
	if len(code) < header {
		return nil, nil, false
	}
	rest = append(make([]byte, 0, len(code)), code[:header]...)
	memory := int64(-1) // bytes at the start
	for r := (dataReader{b: code[header:]}); len(r.b) > 0; {
		whole := r.b
		id := r.byte()
		body := r.take(r.uint())
		if r.bad {
			return nil, nil, false
		}
		s := dataReader{b: body}
		switch id {
		case sectionDataCount:
			return nil, nil, false // there may be instructions that name segments
		case sectionMemory:
			n, flags := s.uint(), s.byte()
			memory = int64(s.uint()) * wasmPage
			if s.bad || n != 1 || flags > 1 {
				return nil, nil, false
			}
		case sectionData:
			if segments, ok = s.segments(min(memory, maxImage)); !ok {
				return nil, nil, false
			}
			continue
		}
		rest = append(rest, whole[:len(whole)-len(r.b)]...)
	}
	return segments, rest, true
}

// dataReader reads the little of the binary format that splitData needs.
type dataReader struct {
	b   []byte
	bad bool
}

func (r *dataReader) byte() byte {
	b := r.take(1)
	if r.bad {
		return 0
	}
	return b[0]
}

func (r *dataReader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *dataReader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > 1<<32-1 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

// offset reads the constant expression i32.const N, as an unsigned address.
func (r *dataReader) offset() int64 {
	const i32Const, end = 0x41, 0x0b
	if r.byte() != i32Const {
		r.bad = true
		return 0
	}
	var v int64
	for shift := 0; ; shift += 7 {
		b := r.byte()
		if r.bad || shift > 28 {
			r.bad = true
			return 0
		}
		v |= int64(b&0x7f) << shift
		if b&0x80 == 0 {
			if b&0x40 != 0 {
				v |= -1 << (shift + 7)
			}
			break
		}
	}
	if r.byte() != end {
		r.bad = true
	}
	return int64(uint32(v))
}

// segments reads the data section. Each must be active and end before limit.
func (r *dataReader) segments(limit int64) ([]segment, bool) {
	n := r.uint()
	var out []segment
	for range n {
		if flag := r.uint(); r.bad || flag != 0 {
			return nil, false
		}
		s := segment{offset: r.offset()}
		s.bytes = r.take(r.uint())
		if r.bad || s.end() > limit {
			return nil, false
		}
		out = append(out, s) // zeros too: they may cover what an earlier one says
	}
	return out, len(r.b) == 0
}
