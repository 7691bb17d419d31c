package fuel

import (
	"bytes"
	"runtime"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/mesh"
)

func TestRefused(t *testing.T) {
	with := func(change func(*parts)) []byte {
		p := oneFunc()
		change(&p)
		return p.bytes()
	}
	name := func(s string) []byte { return appendName(nil, s) }
	for _, c := range []struct {
		what string
		code []byte
		kind mesh.Kind
		text string
	}{
		{"nothing", nil, mesh.Invalid, "does not begin"},
		{"text", []byte("#!/bin/sh\necho"), mesh.Invalid, "does not begin"},
		{"a component", []byte("\x00asm\x0d\x00\x01\x00\x00"), mesh.Unsupported, "component"},
		{"another version", []byte("\x00asm\x02\x00\x00\x00"), mesh.Unsupported, "version"},
		{"a cut section", oneFunc().bytes()[:20], mesh.Invalid, "cut short"},
		{"a tail call", oneFunc(0x12, 0).bytes(), mesh.Unsupported, "tail calls"},
		{"threads", oneFunc(0xfe, 0x03, 0).bytes(), mesh.Unsupported, "threads"},
		{"exceptions", oneFunc(0x08, 0).bytes(), mesh.Unsupported, "exceptions"},
		{"relaxed SIMD", oneFunc(0xfd, 0x80, 0x02).bytes(), mesh.Unsupported, "vector"},
		{"an unknown operator", oneFunc(0x27).bytes(), mesh.Invalid, "unknown operator"},
		{"an unknown dead operator", oneFunc(opReturn, 0x27).bytes(), mesh.Invalid, "unknown operator"},
		{"shared memory", with(func(p *parts) { p.memories = []byte{1, 3, 1, 1} }), mesh.Unsupported, "threads"},
		{"a tag section", append(oneFunc().bytes(), secTag, 1, 0), mesh.Unsupported, "exceptions"},

		{"the counter's name", with(func(p *parts) {
			p.exports = append(append([]byte{1}, name(CounterExport)...), 0, 0)
		}), mesh.Invalid, "reserved"},
		{"the refill's name", with(func(p *parts) {
			p.imports = append(append(append([]byte{1}, name(RefillModule)...), name(RefillName)...), 0, 0)
		}), mesh.Invalid, "reserved"},
		{"reading the counter", oneFunc(opGlobalGet, 0, opDrop).bytes(), mesh.Invalid, "global"},
		{"writing the counter", oneFunc(opI64Const, 0, opGlobalSet, 0).bytes(), mesh.Invalid, "global"},
		{"writing it where it is dead", oneFunc(opReturn, opI64Const, 0, opGlobalSet, 0).bytes(), mesh.Invalid, "global"},
		{"exporting the counter", with(func(p *parts) { p.exports = []byte{1, 1, 'c', 3, 0} }), mesh.Invalid, "does not exist"},
		{"a local of metering", oneFunc(opLocalGet, 0, opDrop).bytes(), mesh.Invalid, "local"},
		{"calling the refill helper", oneFunc(opCall, 1).bytes(), mesh.Invalid, "calls a function"},
		{"referring to the refill helper", oneFunc(opRefFunc, 1, opDrop).bytes(), mesh.Invalid, "function"},
		{"exporting the refill helper", with(func(p *parts) { p.exports = []byte{1, 1, 'f', 0, 1} }), mesh.Invalid, "does not exist"},
		{"starting the refill helper", with(func(p *parts) { p.start = []byte{1} }), mesh.Invalid, "start"},
		{"the refill helper in a table", with(func(p *parts) {
			p.tables = []byte{1, 0x70, 0, 1}
			p.elements = []byte{1, 0, opI32Const, 0, opEnd, 1, 1}
		}), mesh.Invalid, "element"},
		{"a type of metering", oneFunc(opI32Const, 0, opCallIndirect, 1, 0).bytes(), mesh.Invalid, "type"},
		{"a block of a type of metering", oneFunc(opBlock, 1, opEnd).bytes(), mesh.Invalid, "type"},
		{"data at the counter", with(func(p *parts) {
			p.memories = []byte{1, 0, 1}
			p.data = []byte{1, 0, opGlobalGet, 0, opEnd, 0}
		}), mesh.Invalid, "data"},

		{"more data segments than bytes", with(func(p *parts) { p.data = []byte{0xff, 0xff, 0xff, 0xff, 0x0f} }), mesh.Invalid, "data"},
		{"more locals than a stack", parts{
			types: []byte{1, funcForm, 0, 0}, funcs: []byte{1, 0}, code: []byte{1, 8, 1, 0xff, 0xff, 0xff, 0xff, 0x0f, typeI64, opEnd},
		}.bytes(), mesh.TooLarge, "locals"},
		{"a branch out of the function", oneFunc(opBr, 1).bytes(), mesh.Invalid, "branch"},
		{"no end", parts{types: []byte{1, funcForm, 0, 0}, funcs: []byte{1, 0}, code: []byte{1, 2, 0, opNop}}.bytes(), mesh.Invalid, "cut short"},
		{"code behind the end", oneFunc(opEnd).bytes(), mesh.Invalid, "function body"},
		{"an else without an if", oneFunc(opBlock, emptyBlock, opElse, opEnd).bytes(), mesh.Invalid, "else"},
	} {
		m, err := Instrument(c.code, Options{})
		if err == nil {
			t.Errorf("%s: accepted, as %x", c.what, m.Code)
			continue
		}
		if mesh.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v (%s), want %s with %q", c.what, err, mesh.KindOf(err), c.kind, c.text)
		}
		if mesh.AsError(err).Hint == "" && c.kind != mesh.TooLarge {
			t.Errorf("%s: %v: no hint", c.what, err)
		}
	}
}

// TestTimeAndMemoryAreLinear doubles hostile modules of several kinds: time
// and memory must not grow much faster than they do.
func TestTimeAndMemoryAreLinear(t *testing.T) {
	repeat := func(n int, b ...byte) []byte { return bytes.Repeat(b, n) }
	for _, c := range []struct {
		what string
		make func(n int) []byte
	}{
		{"nested blocks", func(n int) []byte {
			return append(repeat(n, opBlock, emptyBlock), repeat(n, opEnd)...)
		}},
		{"nested loops with a call in each", func(n int) []byte {
			return append(repeat(n, opLoop, emptyBlock, opCall, 0), repeat(n, opEnd)...)
		}},
		{"nested dead blocks", func(n int) []byte {
			return append(append([]byte{opUnreachable}, repeat(n, opBlock, emptyBlock)...), repeat(n, opEnd)...)
		}},
		{"blocks that end dead, nested", func(n int) []byte {
			return append(append(repeat(n, opBlock, emptyBlock), opUnreachable), repeat(n, opEnd)...)
		}},
		{"tables in a deep nest", func(n int) []byte {
			b := repeat(n, opBlock, emptyBlock)
			for range n / 8 {
				b = append(b, opBlock, emptyBlock, opI32Const, 0, opBrTable, 3, 0, 1, 2, 3, opEnd)
			}
			return append(b, repeat(n, opEnd)...)
		}},
		{"dispatch loops in dispatch loops", func(n int) []byte {
			b := repeat(n, opLoop, emptyBlock, opBlock, emptyBlock, opI32Const, 0, opBrTable, 1, 0, 0, opEnd)
			return append(b, repeat(n, opEnd)...)
		}},
		{"small loops", func(n int) []byte {
			return repeat(n, opLoop, emptyBlock, opI32Const, 0, opBrIf, 0, opEnd)
		}},
	} {
		measure := func(n int) (time.Duration, uint64) {
			code := oneFunc(c.make(n)...).bytes()
			best, size := time.Hour, uint64(0)
			for range 3 {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				start := time.Now()
				if _, err := Instrument(code, Options{}); err != nil {
					t.Fatalf("%s: %v", c.what, err)
				}
				best = min(best, time.Since(start))
				runtime.ReadMemStats(&after)
				size = after.TotalAlloc - before.TotalAlloc
			}
			return best, size
		}
		const n = 16_000
		t1, m1 := measure(n)
		t8, m8 := measure(8 * n)
		if t8 > 40*t1+100*time.Millisecond || m8 > 16*m1+1<<20 {
			t.Errorf("%s: %v and %d bytes for %d, %v and %d bytes for 8 times as many", c.what, t1, m1, n, t8, m8)
		}
	}
	deep := append(repeat(MaxNesting+1, opBlock, emptyBlock), repeat(MaxNesting+1, opEnd)...)
	if _, err := Instrument(oneFunc(deep...).bytes(), Options{}); mesh.KindOf(err) != mesh.TooLarge {
		t.Errorf("nested too deeply: %v, want %s", err, mesh.TooLarge)
	}
}
