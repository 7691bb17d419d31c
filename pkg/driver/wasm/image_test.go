package wasm

import (
	"bytes"
	"context"
	"os"
	"sync/atomic"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"

	"peercompute/pkg/fuel"
)

// withData is a module with this many pages of memory and these data segments.
func withData(pages int, extra []byte, segments ...[]byte) []byte {
	return cat([]byte("\x00asm\x01\x00\x00\x00"),
		section(1, []byte{1, 0x60, 0, 0}),
		section(3, []byte{1, 0}),
		section(5, []byte{1, 0}, uleb(pages)),
		section(7, []byte{2}, name("memory"), []byte{2, 0}, name("_start"), []byte{0, 0}),
		extra,
		section(10, []byte{1, 2, 0}, end),
		section(11, uleb(len(segments)), cat(segments...)))
}

func at(offset int, text string) []byte { return cat([]byte{0}, i32(offset), end, name(text)) }

// memoryOf is what an instance finds in its memory.
func memoryOf(t *testing.T, code []byte, img *image) ([]byte, error) {
	t.Helper()
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	defer rt.Close(ctx)
	mem := &linear{limit: 64 << 20, image: img, shared: &budget{limit: 1 << 30}, now: new(atomic.Int64)}
	defer mem.Free()
	mod, err := rt.Instantiate(experimental.WithMemoryAllocator(ctx, mem), code)
	if err != nil {
		return nil, err
	}
	b, _ := mod.Memory().Read(0, mod.Memory().Size())
	return bytes.Clone(b), nil
}

func TestImageIsWhatTheSegmentsSay(t *testing.T) {
	count := section(12, []byte{1})
	for _, tc := range []struct {
		name  string
		code  []byte
		moved bool
	}{
		{"one", withData(1, nil, at(100, "hello")), true},
		{"many, out of order", withData(4, nil, at(200_000, "there"), at(0, "a"), at(65535, "across")), true},
		{"overlapping", withData(1, nil, at(10, "aaaaaa"), at(12, "bb"), at(8, "ccc")), true},
		{"zeros over text", withData(1, nil, at(10, "aaaaaa"), at(12, "\x00\x00")), true},
		{"to the last byte", withData(1, nil, at(65534, "xy")), true},
		{"beyond", withData(1, nil, at(65535, "xy")), false},
		{"far beyond", withData(1, nil, at(-4, "x")), false},
		{"none", withData(1, nil), false},
		{"counted", withData(1, count, at(0, "x")), false},
		{"passive", withData(1, nil, cat([]byte{1}, name("x"))), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want, werr := memoryOf(t, tc.code, nil)
			rest, img, err := takeImage(t.TempDir(), tc.code)
			if err != nil {
				t.Fatal(err)
			}
			defer img.close()
			if (img != nil) != tc.moved {
				t.Errorf("moved: %v, want %v", img != nil, tc.moved)
			}
			for range 2 { // the first must not write what the second sees
				got, gerr := memoryOf(t, rest, img)
				if (gerr == nil) != (werr == nil) || !bytes.Equal(got, want) {
					t.Errorf("memories differ: %v, %v", gerr, werr)
				}
			}
		})
	}
}

func TestImageIsPrivate(t *testing.T) {
	_, img, err := takeImage(t.TempDir(), withData(1, nil, at(0, "secret")))
	if err != nil {
		t.Fatal(err)
	}
	defer img.close()
	for range 2 {
		mem := &linear{limit: 1 << 20, image: img, shared: &budget{limit: 1 << 30}, now: new(atomic.Int64)}
		b := mem.Reallocate(wasmPage)
		if string(b[:6]) != "secret" {
			t.Errorf("got %q", b[:6])
		}
		copy(b, "change")
		mem.Free()
	}
}

// Whatever a module is, taking its data out leaves one that is as valid.
func FuzzSplitData(f *testing.F) {
	f.Add(withData(1, nil, at(100, "hello"), at(3, "x")))
	f.Add(sayModule("hello"))
	f.Fuzz(func(t *testing.T, plain []byte) {
		metered, err := fuel.Instrument(plain, fuel.Options{})
		if err != nil {
			return // no such module comes so far: see compile
		}
		code := metered.Code
		segments, rest, ok := splitData(code)
		if !ok {
			return
		}
		for _, s := range segments {
			if s.offset < 0 || s.end() > maxImage {
				t.Fatalf("a segment from %d to %d", s.offset, s.end())
			}
		}
		if len(rest) > len(code) {
			t.Fatal("the rest is longer than the whole")
		}
		ctx := context.Background()
		rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(features))
		defer rt.Close(ctx)
		if _, err := rt.CompileModule(ctx, code); err != nil {
			return
		}
		if _, err := rt.CompileModule(ctx, rest); err != nil {
			t.Fatalf("valid before, and after: %v", err)
		}
	})
}

func TestImageLeavesNoFile(t *testing.T) {
	dir := t.TempDir()
	_, img, err := takeImage(dir, withData(1, nil, at(0, "x")))
	if err != nil {
		t.Fatal(err)
	}
	defer img.close()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}
