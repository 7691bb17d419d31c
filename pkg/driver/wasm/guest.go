package wasm

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/sys"

	"peercompute/pkg/driver"
	"peercompute/pkg/driver/wasm/internal/fetch"
	"peercompute/pkg/driver/wasm/internal/scratch"
	"peercompute/pkg/driver/wasm/internal/wasi"
	"peercompute/pkg/mesh"
)

// Epoch is what the wall clock says when an instance begins, in seconds since
// 1970: 1 January 2026. Real time is not a guest's to know unless it is granted;
// a clock that stands still, or starts at zero, breaks programs.
const Epoch = 1767225600

// instance is one run of a module from its start to its end.
type instance struct {
	name           string
	args           []string
	env            []string  // KEY=VALUE; a later entry wins
	stdin          io.Reader // of the outside; a job's *input otherwise
	stdout, stderr io.Writer
	memory         int64 // bytes
	scratch        int64 // bytes of its private directory; 0 = none
	wall           bool  // its wall clock is the true one
	meter          *meter
	shared         *budget
	now            *atomic.Int64  // bytes in use by all instances of the run
	seed           *driver.Seed   // of a run that can be repeated; nil for others
	net            *fetch.Remote  // what it may reach; nil = nothing
	listener       *wasi.Listener // of a server
	record         *driver.Record // of what such a run observes
}

// outcome is how an instance ended.
type outcome struct {
	mesh.Exit
	cpu  time.Duration
	told uint64 // of its fuel, told while it ran
}

// run executes a fresh instance of m to its end. Whatever the guest does, run
// returns soon after in.meter's context has ended.
func (m *module) run(in instance) (out outcome) {
	mem := &linear{limit: in.memory, image: m.image, pool: m.pool, shared: in.shared, now: in.now}
	in.meter.resumed = time.Now()
	g, err := in.guest()
	if err == nil {
		ctx := experimental.WithMemoryAllocator(wasi.With(withMeter(in.meter.ctx, in.meter), g), mem)
		err = m.call(ctx, in.meter)
		g.Close()
	}
	in.meter.pause()
	if in.meter.stopped == nil && !in.meter.within() {
		in.meter.stopped = errFuel // it ended before it noticed
	}
	mem.Free() // no-op if the instance was closed
	out = judge(err, in.meter, mem)
	out.Fuel = in.meter.used()
	out.PeakMemory = mem.peak
	out.cpu, out.told = in.meter.cpu, in.meter.told
	return out
}

func (m *module) call(ctx context.Context, meter *meter) (err error) {
	defer func() {
		// wazero turns what goes wrong in a guest into an error; this is for what
		// goes wrong in making one.
		if r := recover(); r != nil {
			err = fmt.Errorf("cannot instantiate: %v", r)
			if e, ok := r.(error); ok {
				err = fmt.Errorf("cannot instantiate: %w", e)
			}
		}
	}()
	mod, err := m.runtime.InstantiateModule(ctx, m.compiled, blank)
	if err != nil {
		return err
	}
	defer mod.Close(ctx)
	meter.Attach(mod)
	_, err = mod.ExportedFunction(startFunction).Call(ctx)
	return err
}

// blank makes instances that get nothing from wazero: what a guest has, package
// wasi gives it. _start is called by call.
var blank = wazero.NewModuleConfig().WithName("").WithStartFunctions()

// guest is all that an instance gets: what is not named here does not exist for it.
func (in *instance) guest() (*wasi.Guest, error) {
	stdin := in.stdin
	if _, ok := stdin.(*input); !ok {
		stdin = waitingReader{stdin, in.meter}
	}
	random, clock := in.world()
	monotonic := func() int64 { return int64(clock()) + 1 }
	g := &wasi.Guest{
		Args: append([]string{in.name}, in.args...), Env: unique(in.env),
		Stdin: stdin, Stdout: waitingWriter{in.stdout, in.meter}, Stderr: waitingWriter{in.stderr, in.meter},
		Random: random, Meter: in.meter, Monotonic: monotonic, Listener: in.listener,
		Wall: func() int64 { return Epoch*int64(time.Second) + monotonic() },
	}
	if in.net != nil {
		g.HTTP = in.request
	}
	fileTime := g.Wall
	if in.wall {
		last := Epoch * int64(time.Second)
		g.Wall = func() int64 { last = in.observedTime(); return last }
		if fileTime = g.Wall; in.record != nil {
			fileTime = func() int64 { return last } // not an observation for each file
		}
	}
	if in.scratch > 0 {
		fs, err := scratch.New(scratch.Config{Bytes: in.scratch, Reserve: in.shared.reserve, Release: in.shared.release, Now: fileTime})
		if err != nil {
			return nil, err
		}
		if e := fs.Mkdir(fs.Root(), "tmp"); e != 0 { // where programs look for it
			return nil, e
		}
		g.Scratch = fs
	}
	return g, nil
}

// observedTime is the true time, or in a repeated run what it was the first time.
func (in *instance) observedTime() int64 {
	seen, err := in.record.Observe(driver.ObservedClock, func() []byte {
		return binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixNano()))
	})
	if err == nil && len(seen) != 8 {
		err = driver.ErrDiverged
	}
	if err != nil {
		in.meter.interrupt(err)
	}
	return int64(binary.BigEndian.Uint64(seen))
}

// unique leaves the last of several entries with the same key.
func unique(env []string) []string {
	at := make(map[string]int, len(env))
	out := make([]string, 0, len(env))
	for _, kv := range env {
		k, _, ok := strings.Cut(kv, "=")
		if !ok {
			continue
		}
		if i, again := at[k]; again {
			out[i] = kv
			continue
		}
		at[k] = len(out)
		out = append(out, kv)
	}
	return out
}

// world is where an instance's random bytes and time come from: of a run that can
// be repeated, its seed and its own progress; else this machine.
func (in *instance) world() (random io.Reader, clock func() time.Duration) {
	if in.seed == nil {
		start := time.Now()
		return crand.Reader, func() time.Duration { return time.Since(start) }
	}
	return mrand.NewChaCha8(*in.seed), in.meter.virtual
}

// judge turns the end of a guest into an Exit.
func judge(err error, m *meter, mem *linear) outcome {
	var exit *sys.ExitError
	switch {
	case m.stopped != nil:
		kind, why := m.reason()
		return outcome{Exit: mesh.Exit{Code: exitKilled, Kind: kind, Reason: why}}
	case err == nil:
		return outcome{}
	case errors.Is(err, errNoMemory):
		return outcome{Exit: mesh.Exit{Code: exitKilled, Kind: mesh.OutOfMemory, Reason: outOfMemory(mem)}}
	case errors.As(err, &exit):
		out := outcome{Exit: mesh.Exit{Code: int(exit.ExitCode())}}
		if mem.denied && out.Code != 0 {
			out.Kind, out.Reason = mesh.OutOfMemory, outOfMemory(mem)
		}
		return out
	}
	first, trace, _ := strings.Cut(err.Error(), "\n")
	out := outcome{Exit: mesh.Exit{Code: exitTrapped, Kind: mesh.Trap, Reason: "trap: " + strings.TrimPrefix(first, "wasm error: "), Trace: strings.TrimPrefix(trace, "wasm stack trace:\n")}}
	if mem.denied {
		out.Kind, out.Reason = mesh.OutOfMemory, outOfMemory(mem)
	}
	return out
}

func outOfMemory(mem *linear) string {
	if mem.starved {
		return fmt.Sprintf("out of memory: all guests of this peer share %d MiB", mem.shared.limit>>20)
	}
	return fmt.Sprintf("out of memory: limit %d MiB", mem.limit>>20)
}

// The exit statuses of runs that did not end themselves, as shells give them.
const (
	exitKilled  = 137
	exitTrapped = 134
)
