// Package wasi is all that a guest can reach outside its own memory: the functions
// of WASI preview 1, and with them each capability that a guest may have. What is
// not in its tables does not exist for a guest.
//
// Every function checks pointers and lengths against the guest's memory, bounds
// what it is asked for, and charges fuel for it before it does it. One that may
// take long, or wait, looks every now and then at whether the guest must end.
//
// The functions are written anew rather than taken from wazero because those there
// open real files and sockets, charge nothing, fix the environment when an
// instance is made, and answer a poll of a socket at once, ready or not.
package wasi

import (
	"context"
	"encoding/binary"
	"io"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"peercompute/pkg/driver/wasm/internal/errno"
	"peercompute/pkg/driver/wasm/internal/scratch"
)

// ModuleName is the module that guests import the functions from.
const ModuleName = "wasi_snapshot_preview1"

// Meter holds a guest to its limits. Each of its methods may unwind the guest, by
// a panic that the runtime takes for the guest's end, and does so once it must end.
type Meter interface {
	// Attach is told the instance at the beginning of each call.
	Attach(api.Module)
	// Charge takes fuel for what is about to be done.
	Charge(units uint64)
	// Check does nothing as long as the guest may go on.
	Check()
	// Wait returns after d, or when wake can be received from; at once after
	// neither if d is zero, never for want of d if it is below zero.
	Wait(d time.Duration, wake <-chan struct{})
}

// Guest is what one instance is given. Its zero fields give nothing.
type Guest struct {
	Args []string
	Env  []string // KEY=VALUE
	// Stdin, Stdout and Stderr may wait and must end their waits with the guest.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Random         io.Reader
	Monotonic      func() int64 // ns since some time
	Wall           func() int64 // ns since 1970
	Scratch        *scratch.FS  // its files; nil = none
	Listener       *Listener    // where it is connected to; nil = nowhere
	// HTTP makes a request and returns the answer and a code; nil = no network. Its
	// wait ends with the guest.
	HTTP  func(request []byte, room int) (answer []byte, code uint32)
	Meter Meter
	// Begin, if not nil, is called once, before the guest first learns anything of
	// Env, Stdin or Stdout, and may set these.
	Begin func()

	mem     api.Memory
	files   []*file // by number
	vectors [][]byte
	subs    []subscription
	wake    chan struct{}
}

type guestKey struct{}

// With makes g the guest of all calls with the context.
func With(ctx context.Context, g *Guest) context.Context {
	g.open()
	return context.WithValue(ctx, guestKey{}, g)
}

// Close gives back what the guest still holds. It may not run any more.
func (g *Guest) Close() {
	for fd := range g.files {
		_ = g.close(fd) // only says that there is none of that number
	}
	if g.Scratch != nil {
		g.Scratch.Close()
	}
}

// begin is called by whatever is about the request that the guest is for.
func (g *Guest) begin() {
	if f := g.Begin; f != nil {
		g.Begin = nil
		f()
	}
}

// function is one function that guests may import.
type function struct {
	name   string
	of     string // the capability it belongs to
	params string // i = i32, I = i64
	// cost is charged at each call. What the length of the work decides is charged
	// by the function itself, before it works.
	cost uint64
	call func(*Guest, []uint64) errno.Errno // nil: proc_exit
}

// perUnit is how many bytes are moved for one unit, as in the schedule.
const perUnit = 8

// Offer makes the functions importable in rt.
func Offer(ctx context.Context, rt wazero.Runtime) (map[string]bool, error) {
	b := rt.NewHostModuleBuilder(ModuleName)
	names := map[string]bool{}
	for _, f := range functions {
		results := []api.ValueType{api.ValueTypeI32}
		if f.call == nil {
			results = nil
		}
		b.NewFunctionBuilder().WithGoModuleFunction(f, types(f.params), results).Export(f.name)
		names[f.name] = true
	}
	_, err := b.Instantiate(ctx)
	return names, err
}

func types(params string) []api.ValueType {
	out := make([]api.ValueType, len(params))
	for i, c := range params {
		out[i] = api.ValueTypeI32
		if c == 'I' {
			out[i] = api.ValueTypeI64
		}
	}
	return out
}

// Call implements api.GoModuleFunction.
func (f function) Call(ctx context.Context, mod api.Module, stack []uint64) {
	g := enter(ctx, mod, f.cost)
	if f.call == nil {
		g.begin()
		exit(uint32(stack[0]))
	}
	stack[0] = uint64(f.call(g, stack))
}

// enter begins a call: it finds the guest and charges it.
func enter(ctx context.Context, mod api.Module, cost uint64) *Guest {
	g := ctx.Value(guestKey{}).(*Guest)
	g.Meter.Attach(mod)
	g.Meter.Charge(cost)
	if g.mem == nil {
		g.mem = memoryOf(mod)
	}
	return g
}

// memoryOf is a module's memory, or an empty one if it has none.
func memoryOf(mod api.Module) (mem api.Memory) {
	defer func() {
		if recover() != nil {
			mem = noMemory{}
		}
	}()
	mem = mod.Memory()
	mem.Size() // fails if there is none
	return mem
}

// noMemory is the memory of a module without one.
type noMemory struct{ api.Memory }

func (noMemory) Read(uint32, uint32) ([]byte, bool) { return nil, false }

var le = binary.LittleEndian

// bytes is n bytes of the guest's memory; they are valid until the call returns.
func (g *Guest) bytes(at, n uint64) ([]byte, bool) {
	return g.mem.Read(uint32(at), uint32(n))
}

func (g *Guest) put32(at uint64, v uint32) errno.Errno {
	b, ok := g.bytes(at, 4)
	if !ok {
		return errno.Fault
	}
	le.PutUint32(b, v)
	return 0
}

func (g *Guest) put64(at, v uint64) errno.Errno {
	b, ok := g.bytes(at, 8)
	if !ok {
		return errno.Fault
	}
	le.PutUint64(b, v)
	return 0
}

// path is a path of the guest's; its length is charged.
func (g *Guest) path(at, n uint64) (string, errno.Errno) {
	if uint32(n) > scratch.MaxPath {
		return "", errno.LongName
	}
	b, ok := g.bytes(at, n)
	if !ok {
		return "", errno.Fault
	}
	g.Meter.Charge(uint64(len(b)))
	return string(b), 0
}

// maxVectors bounds the parts of one read or write.
const maxVectors = 1024

// parts are the buffers that n vectors name. All their bytes are charged.
func (g *Guest) parts(at, n uint64) ([][]byte, errno.Errno) {
	if uint32(n) > maxVectors {
		return nil, errno.Invalid
	}
	list, ok := g.bytes(at, uint64(uint32(n))*8)
	if !ok {
		return nil, errno.Fault
	}
	g.vectors = g.vectors[:0]
	total := uint64(0)
	for ; len(list) > 0; list = list[8:] {
		b, ok := g.bytes(uint64(le.Uint32(list)), uint64(le.Uint32(list[4:])))
		if !ok {
			return nil, errno.Fault
		}
		if len(b) > 0 {
			g.vectors = append(g.vectors, b)
			total += uint64(len(b))
		}
	}
	g.Meter.Charge(total / perUnit)
	return g.vectors, 0
}

// stretch is how many bytes are moved between two looks at whether the guest must end.
const stretch = 1 << 20

// each calls move for the parts, piece by piece, until it moves less than it is
// given. An error counts only if nothing was moved before.
func (g *Guest) each(parts [][]byte, move func([]byte) (int, errno.Errno)) (total uint32, e errno.Errno) {
	for _, p := range parts {
		for len(p) > 0 {
			piece := p[:min(len(p), stretch)]
			n, e := move(piece)
			total += uint32(n)
			if e != 0 && total == 0 {
				return 0, e
			}
			if e != 0 || n < len(piece) {
				return total, 0
			}
			if p = p[n:]; len(p) > 0 {
				g.Meter.Check()
			}
		}
	}
	return total, 0
}
