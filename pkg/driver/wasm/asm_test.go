package wasm

import (
	"encoding/binary"
	"slices"
)

// Small modules, assembled by hand: they compile in no time, also under the race
// detector, and do exactly what they say.

// leb is the signed LEB128 of v, which for values below 64 is the unsigned one too.
func leb(v int) []byte {
	var b []byte
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func uleb(v int) []byte { return binary.AppendUvarint(nil, uint64(v)) }

func cat(parts ...[]byte) []byte { return slices.Concat(parts...) }

func section(id byte, content ...[]byte) []byte {
	c := cat(content...)
	return cat([]byte{id}, uleb(len(c)), c)
}

func name(s string) []byte { return cat(uleb(len(s)), []byte(s)) }

// Operators of the modules below.
func i32(v int) []byte   { return cat([]byte{0x41}, leb(v)) }
func call(f int) []byte  { return cat([]byte{0x10}, uleb(f)) }
func local(i int) []byte { return cat([]byte{0x20}, uleb(i)) }
func set(i int) []byte   { return cat([]byte{0x21}, uleb(i)) }

var (
	drop        = []byte{0x1a}
	loop        = []byte{0x03, 0x40}
	block       = []byte{0x02, 0x40}
	end         = []byte{0x0b}
	again       = []byte{0x0c, 0} // br 0
	outIf       = []byte{0x0d, 1} // br_if 1
	eqz         = []byte{0x45}
	load        = []byte{0x28, 2, 0}
	store       = []byte{0x36, 2, 0}
	grow        = []byte{0x40, 0}
	minusOne    = cat(i32(-1), []byte{0x46}) // is it -1?
	ifThen      = []byte{0x04, 0x40}
	unreachable = []byte{0x00}
)

// Imports, in order of their index.
const (
	fdRead = iota
	fdWrite
	procExit
)

// Where the modules keep things in memory: an iovec for reading at 0, its count at
// 8, one for writing at 16, its count at 24; text from 64; a buffer from 4096.
const (
	textAt   = 64
	bufferAt = 4096
	buffer   = 32 << 10
)

// assemble makes a program of the body of _start, which has one local, and text.
func assemble(text string, body ...[]byte) []byte {
	code := cat(body...)
	code = cat([]byte{1, 1, 0x7f}, code, end)
	wasi := "wasi_snapshot_preview1"
	return cat([]byte("\x00asm\x01\x00\x00\x00"),
		section(1, []byte{
			3, // types
			0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f,
			0x60, 1, 0x7f, 0,
			0x60, 0, 0,
		}),
		section(2, []byte{3}, name(wasi), name("fd_read"), []byte{0, 0}, name(wasi), name("fd_write"), []byte{0, 0}, name(wasi), name("proc_exit"), []byte{0, 1}),
		section(3, []byte{1, 2}),
		section(5, []byte{1, 0, 1}),
		section(7, []byte{2}, name("memory"), []byte{2, 0}, name("_start"), []byte{0, 3}),
		section(10, []byte{1}, uleb(len(code)), code),
		section(11, []byte{1, 0}, i32(textAt), end, name(text)),
	)
}

// write writes n bytes, which the operators of n leave on the stack, from at to fd.
func write(fd, at int, n []byte) []byte {
	return cat(i32(16), i32(at), store, i32(20), n, store, i32(fd), i32(16), i32(1), i32(24), call(fdWrite), drop)
}

// say writes text to fd.
func say(fd int, text string) []byte { return write(fd, textAt, i32(len(text))) }

const plain = "Content-Type: text/plain\r\n\r\n"

func sayModule(text string) []byte { return assemble(text, say(1, text)) }

// echoModule writes text, then whatever comes in.
func echoModule(text string) []byte {
	return assemble(text, say(1, text),
		block, loop,
		i32(0), i32(bufferAt), store, i32(4), i32(buffer), store,
		i32(0), i32(0), i32(1), i32(8), call(fdRead), drop,
		i32(8), load, set(0), local(0), eqz, outIf,
		write(1, bufferAt, local(0)), again, end, end)
}

// spinModule writes text and then never ends.
func spinModule(text string) []byte {
	first := []byte{}
	if text != "" {
		first = say(1, text)
	}
	return assemble(text, first, loop, again, end)
}

// floodModule writes text to fd for ever.
func floodModule(fd int, text string) []byte {
	return assemble(text, loop, say(fd, text), again, end)
}

// eatModule takes memory until there is no more, and traps.
func eatModule() []byte {
	return assemble("", loop, i32(16), grow, minusOne, ifThen, unreachable, end, again, end)
}

func exitModule(code int) []byte { return assemble("", i32(code), call(procExit)) }

func trapModule() []byte { return assemble("", unreachable) }
