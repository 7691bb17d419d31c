package wasm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"peercompute/pkg/driver/wasm/internal/wasi"
	"peercompute/pkg/fuel"
	"peercompute/pkg/mesh"
)

// startFunction is what a program exports to be run (WASI "command").
const startFunction = "_start"

// features are those of WebAssembly 2.0; fuel meters no others.
const features = api.CoreFeaturesV2

// keptIdle is how many compiled modules stay in memory without a workload, so
// that a job that is run again and again is compiled once.
const keptIdle = 4

// modules compiles modules and keeps them while they are used, by digest.
type modules struct {
	runtime wazero.Runtime
	cache   wazero.CompilationCache
	dir     string        // of the worker's files
	valid   string        // directory of the digests that were validated before
	max     int64         // bytes of one module
	turn    chan struct{} // holds one token: one compilation at a time
	known   map[string]bool

	pooled atomic.Int64 // bytes of memories that wait for their next instance

	mu   sync.Mutex
	m    map[string]*module
	idle []*module // without users, the longest first
}

// module is a compiled module.
type module struct {
	digest   string
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
	image    *image // of its memory at the start; nil if wazero fills that
	pool     *pool  // of memories
	size     int64  // bytes of its code

	users int // guarded by modules.mu
}

// newModules prepares a runtime of the kind of engine, which keeps its compiled code in dir.
func newModules(ctx context.Context, dir string, max int64, engine wazero.RuntimeConfig) (*modules, error) {
	cache, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot open the compile cache: %w", err)
	}
	valid := filepath.Join(dir, "valid-"+strings.ReplaceAll(fuel.Schedule, "/", "-"))
	if err := os.MkdirAll(valid, 0o700); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot open the compile cache: %w", err), cache.Close(ctx))
	}
	rt := wazero.NewRuntimeWithConfig(ctx, engine.WithCompilationCache(cache).WithCoreFeatures(features))
	ms := &modules{
		runtime: rt, cache: cache, dir: dir, valid: valid, max: max,
		turn: make(chan struct{}, 1), m: map[string]*module{},
	}
	if ms.known, err = wasi.Offer(ctx, rt); err != nil { // closed with the runtime
		return nil, errors.Join(fmt.Errorf("cannot offer WASI: %w", err), ms.close(ctx))
	}
	if err := wasi.OfferHTTP(ctx, rt); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot offer HTTP requests: %w", err), ms.close(ctx))
	}
	if err := offerRefill(ctx, rt); err != nil {
		return nil, errors.Join(err, ms.close(ctx))
	}
	return ms, nil
}

func (ms *modules) close(ctx context.Context) error {
	return errors.Join(ms.runtime.Close(ctx), ms.cache.Close(ctx))
}

// acquire returns the module with this digest, compiled from f if need be. The
// caller releases it.
func (ms *modules) acquire(ctx context.Context, digest string, f *os.File) (*module, error) {
	if m := ms.use(digest); m != nil {
		return m, nil
	}
	select {
	case ms.turn <- struct{}{}:
		defer func() { <-ms.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if m := ms.use(digest); m != nil { // compiled meanwhile
		return m, nil
	}
	m, err := ms.compile(ctx, digest, f)
	if err != nil {
		return nil, err
	}
	ms.mu.Lock()
	defer ms.mu.Unlock()
	m.users = 1
	ms.m[digest] = m
	return m, nil
}

func (ms *modules) use(digest string) *module {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	m := ms.m[digest]
	if m == nil {
		return nil
	}
	if m.users == 0 {
		ms.idle = slices.DeleteFunc(ms.idle, func(o *module) bool { return o == m })
	}
	m.users++
	return m
}

// release ends one use. Modules without use are closed, the oldest first, when
// there are more than a few.
func (ms *modules) release(ctx context.Context, m *module) {
	ms.mu.Lock()
	var old *module
	if m.users--; m.users == 0 {
		ms.idle = append(ms.idle, m)
		if len(ms.idle) > keptIdle {
			old = ms.idle[0]
			ms.idle = ms.idle[1:]
			delete(ms.m, old.digest)
		}
	}
	ms.mu.Unlock()
	if old != nil {
		// Frees memory; nothing to be done if it cannot.
		_ = old.compiled.Close(ctx)
		old.pool.close()
		_ = old.image.close()
	}
}

func (ms *modules) compile(ctx context.Context, digest string, f *os.File) (*module, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("cannot read the module: %w", err)
	}
	if st.Size() > ms.max {
		return nil, mesh.Errorf(mesh.TooLarge, "the module has %d bytes, over the limit of %d", st.Size(), ms.max)
	}
	code, err := io.ReadAll(io.NewSectionReader(f, 0, st.Size()))
	if err != nil {
		return nil, fmt.Errorf("cannot read the module: %w", err)
	}
	// What is kept under a digest must be that: the next use does not look again.
	if got := digestOf(code); got != digest {
		return nil, mesh.Errorf(mesh.Denied, "the module's digest is %s, not %s", got, digest).WithRule("module.digest")
	}
	if err := checkHeader(code); err != nil {
		return nil, err
	}
	// Metering comes first, although it counts only for a module that is valid: it
	// takes no more memory than the module's size warrants, while wazero believes
	// whatever length a vector says it has.
	metered, err := fuel.Instrument(code, fuel.Options{})
	if err != nil {
		return nil, err
	}
	mark := filepath.Join(ms.valid, shortHash(digest))
	if _, err := os.Stat(mark); err != nil {
		if err := validate(ctx, code); err != nil {
			return nil, err
		}
	}
	if err := ms.check(metered); err != nil {
		return nil, err
	}
	bare, img, err := takeImage(ms.dir, metered.Code)
	if err != nil {
		return nil, err
	}
	ctx = experimental.WithCompilationWorkers(ctx, runtime.GOMAXPROCS(0))
	compiled, err := ms.runtime.CompileModule(ctx, bare)
	if err != nil {
		return nil, errors.Join(invalidModule(err), img.close())
	}
	if err := checkStart(compiled); err != nil {
		return nil, errors.Join(err, compiled.Close(ctx), img.close())
	}
	// It is as well to validate once more as to fail here.
	_ = os.WriteFile(mark, nil, 0o600)
	return &module{digest: digest, runtime: ms.runtime, compiled: compiled, image: img, pool: &pool{image: img, shared: &ms.pooled}, size: int64(len(metered.Code))}, nil
}

func digestOf(code []byte) string {
	sum := sha256.Sum256(code)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func invalidModule(err error) error {
	first, _, _ := strings.Cut(err.Error(), "\n")
	return mesh.Errorf(mesh.Invalid, "not a valid WebAssembly module: %s", clip(first, 300)).Because(err)
}

// checkHeader tells what is not a module at all from what is one of the wrong kind.
func checkHeader(code []byte) error {
	switch {
	case len(code) < 8 || !bytes.Equal(code[:4], []byte("\x00asm")):
		return mesh.Errorf(mesh.Invalid, "not a WebAssembly module").
			WithHint("a Go program becomes one with: GOOS=wasip1 GOARCH=wasm go build -o app.wasm")
	case bytes.Equal(code[4:8], []byte{0x0d, 0, 1, 0}):
		return mesh.Errorf(mesh.Unsupported, "this is a component (WASI 0.2), not a core module").
			WithHint("build for WASI preview 1: GOOS=wasip1 for Go, the target wasm32-wasip1 for Rust and C")
	case !bytes.Equal(code[4:8], []byte{1, 0, 0, 0}):
		return mesh.Errorf(mesh.Unsupported, "WebAssembly binary version %x is not supported", code[4:8])
	}
	return nil
}

// check says, in words, what of a module's imports would fail at each start.
func (ms *modules) check(m *fuel.Module) error {
	var missing []string
	for _, i := range m.Imports {
		switch {
		case i.Kind == fuel.ExternMemory:
			return mesh.Errorf(mesh.Unsupported, "the module imports its memory; it must define and export it")
		case i.Kind == fuel.ExternFunc && i.Module == wasi.HTTPModule && i.Name == wasi.HTTPName:
		case i.Kind != fuel.ExternFunc || i.Module != wasi.ModuleName || !ms.known[i.Name]:
			missing = append(missing, i.Module+"."+i.Name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	more := ""
	if n := len(missing) - 5; n > 0 {
		missing, more = missing[:5], fmt.Sprintf(" and %d more", n)
	}
	return mesh.Errorf(mesh.Unsupported, "the module imports what is not offered here: %s%s", clip(strings.Join(missing, ", "), 300), more).
		WithHint("only %s is offered: build with GOOS=wasip1, or for the target wasm32-wasip1", wasi.ModuleName)
}

func checkStart(c wazero.CompiledModule) error {
	start := c.ExportedFunctions()[startFunction]
	if start == nil {
		return mesh.Errorf(mesh.Invalid, "the module exports no function %s, so it is no program", startFunction).
			WithHint("build a command, not a library: package main in Go, without -buildmode=c-shared")
	}
	if len(start.ParamTypes()) > 0 || len(start.ResultTypes()) > 0 {
		return mesh.Errorf(mesh.Invalid, "the module's function %s takes parameters or gives results, so it is no program", startFunction)
	}
	return nil
}
