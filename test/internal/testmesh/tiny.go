package testmesh

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// Tiny writes the smallest WASM service there is: a module of some hundred bytes
// that answers every request with text, or, where text is empty, spins for ever.
// It compiles in no time, so that tests of other things need not wait for it.
func Tiny(t testing.TB, text string) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "tiny.wasm")
	if err := os.WriteFile(file, tiny(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// The memory of the module: one iovec, where the count of bytes goes, the answer.
const (
	iovecAt  = 0
	countAt  = 8
	answerAt = 16
)

func tiny(text string) []byte {
	answer := "Content-Type: text/plain\r\n\r\n" + text
	code := []byte{ // fd_write(1, iovecAt, 1, countAt)
		0x41, 1, 0x41, iovecAt, 0x41, 1, 0x41, countAt, 0x10, 0, 0x1a, 0x0b,
	}
	if text == "" {
		code = []byte{0x03, 0x40, 0x0c, 0, 0x0b, 0x0b} // loop: br 0
	}
	data := binary.LittleEndian.AppendUint32(nil, answerAt)
	data = binary.LittleEndian.AppendUint32(data, uint32(len(answer)))
	data = append(append(data, make([]byte, answerAt-len(data))...), answer...)

	m := []byte("\x00asm\x01\x00\x00\x00")
	m = section(m, 1, 2, []byte{0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f}, []byte{0x60, 0, 0})
	m = section(m, 2, 1, name("wasi_snapshot_preview1"), name("fd_write"), []byte{0, 0})
	m = section(m, 3, 1, []byte{1})    // one function of type 1
	m = section(m, 5, 1, []byte{0, 1}) // one page of memory
	m = section(m, 7, 2, name("memory"), []byte{2, 0}, name("_start"), []byte{0, 1})
	m = section(m, 10, 1, vector(append([]byte{0}, code...))) // no locals
	return section(m, 11, 1, []byte{0, 0x41, 0, 0x0b}, vector(data))
}

func section(m []byte, id byte, count uint64, parts ...[]byte) []byte {
	body := binary.AppendUvarint(nil, count)
	for _, p := range parts {
		body = append(body, p...)
	}
	return append(append(m, id), vector(body)...)
}

func vector(b []byte) []byte { return append(binary.AppendUvarint(nil, uint64(len(b))), b...) }

func name(s string) []byte { return vector([]byte(s)) }
