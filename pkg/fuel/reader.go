package fuel

import "peercompute/pkg/mesh"

// reader walks bytes of the binary format. Its first fault sticks: after it
// every read yields zero, so that callers check once per item, not per byte.
type reader struct {
	b   []byte
	i   int
	bad bool
}

func (r *reader) fail() {
	r.bad = true
	r.i = len(r.b)
}

func (r *reader) more() bool { return r.i < len(r.b) }

func (r *reader) byte() byte {
	if r.i >= len(r.b) {
		r.bad = true
		return 0
	}
	c := r.b[r.i]
	r.i++
	return c
}

// u32 reads an unsigned LEB128 number of at most five bytes.
func (r *reader) u32() uint32 {
	var v uint64
	for s := uint(0); s < 35; s += 7 {
		c := r.byte()
		v |= uint64(c&0x7f) << s
		if c < 0x80 {
			if v > 1<<32-1 {
				r.fail()
			}
			return uint32(v)
		}
	}
	r.fail()
	return 0
}

// s64 reads a signed LEB128 number of at most ten bytes.
func (r *reader) s64() int64 {
	var v int64
	for s := uint(0); s < 70; s += 7 {
		c := r.byte()
		v |= int64(c&0x7f) << s
		if c < 0x80 {
			if s += 7; s < 64 && c&0x40 != 0 {
				v |= -1 << s
			}
			return v
		}
	}
	r.fail()
	return 0
}

func (r *reader) take(n uint32) []byte {
	if uint64(n) > uint64(len(r.b)-r.i) {
		r.fail()
		return nil
	}
	s := r.b[r.i : r.i+int(n)]
	r.i += int(n)
	return s
}

func (r *reader) name() string { return string(r.take(r.u32())) }

// count reads the length of a vector whose items take at least min bytes each,
// so that a hostile length cannot make us allocate more than the input's size.
func (r *reader) count(min int) int {
	n := r.u32()
	if uint64(n)*uint64(min) > uint64(len(r.b)-r.i) {
		r.fail()
		return 0
	}
	return int(n)
}

func malformed(what string) error {
	return mesh.Errorf(mesh.Invalid, "the WebAssembly module is malformed: %s", what).
		WithHint("check the file: it may be cut short or not be WebAssembly")
}

func unsupported(what string) error {
	return mesh.Errorf(mesh.Unsupported, "the WebAssembly module uses %s, which metered guests cannot", what).
		WithHint("build for WebAssembly 2.0 with WASI preview 1 (for example GOOS=wasip1 GOARCH=wasm, or wasm32-wasip1)")
}

func tooLarge(what string, limit int) error {
	return mesh.Errorf(mesh.TooLarge, "the WebAssembly module is too large: over %d %s", limit, what)
}

func appendU32(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func appendS64(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func appendName(b []byte, s string) []byte {
	b = appendU32(b, uint32(len(s)))
	return append(b, s...)
}

// reserve leaves room for a length that is not known yet; patch fills it in,
// always with five bytes, so that nothing after it has to move.
func reserve(b []byte) ([]byte, int) {
	return append(b, 0, 0, 0, 0, 0), len(b)
}

func patch(b []byte, at int) {
	n := uint32(len(b) - at - 5)
	for i := range 4 {
		b[at+i] = byte(n>>(7*i)) | 0x80
	}
	b[at+4] = byte(n >> 28)
}
