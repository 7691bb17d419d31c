package wasm

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/tetratelabs/wazero"
)

// A module of a few bytes may say that it has twenty million of something. Nobody
// makes room for them.
func TestDeclaredLengthsTakeNoMemory(t *testing.T) {
	const many, most = 20_000_000, 32 << 20
	ctx := t.Context()
	ms, err := newModules(ctx, t.TempDir(), 1<<20, wazero.NewRuntimeConfigInterpreter())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ms.close(ctx) })
	head := []byte("\x00asm\x01\x00\x00\x00")
	types, funcs := section(1, []byte{1, 0x60, 0, 0}), section(3, []byte{1, 0})
	body := func(locals ...[]byte) []byte {
		code := cat(cat(locals...), []byte{0x0b})
		return section(10, []byte{1}, uleb(len(code)), code)
	}
	for what, code := range map[string][]byte{
		"types":     cat(head, section(1, uleb(many), []byte{0x60, 0, 0})),
		"imports":   cat(head, types, section(2, uleb(many), name("a"), name("b"), []byte{0, 0})),
		"functions": cat(head, types, section(3, uleb(many), []byte{0})),
		"tables":    cat(head, section(4, uleb(many), []byte{0x70, 0, 0})),
		"globals":   cat(head, section(6, uleb(many), []byte{0x7f, 0, 0x41, 0, 0x0b})),
		"exports":   cat(head, types, funcs, section(7, uleb(many), name("f"), []byte{0, 0}), body([]byte{0})),
		"elements":  cat(head, section(9, uleb(many), []byte{0})),
		"data":      cat(head, section(5, []byte{1, 0, 1}), section(11, uleb(many), []byte{1, 0})),
		"bytes":     cat(head, section(5, []byte{1, 0, 1}), section(11, []byte{1, 1}, uleb(40*many))),
		"locals":    cat(head, types, funcs, body([]byte{1}, uleb(40*many), []byte{0x7f})),
		"names":     cat(head, types, funcs, body([]byte{0}), section(0, name("name"), section(1, uleb(many)))),
		"names of locals": cat(head, types, funcs, body([]byte{0}),
			section(0, name("name"), section(2, []byte{1, 0}, uleb(many)))),
	} {
		t.Run(what, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "m.wasm")
			if err := os.WriteFile(path, code, 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			m, err := ms.compile(ctx, digestOf(code), f)
			runtime.ReadMemStats(&after)
			if took := after.TotalAlloc - before.TotalAlloc; took > most {
				t.Errorf("%d bytes of module took %d MiB (%v)", len(code), took>>20, err)
			}
			if m != nil {
				_ = m.compiled.Close(ctx)
				m.pool.close()
				_ = m.image.close()
			}
			t.Log(err)
		})
	}
}
