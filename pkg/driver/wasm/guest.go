package wasm

import (
	"context"
	crand "crypto/rand"
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
	meter          *meter
	shared         *budget
	now            *atomic.Int64 // bytes in use by all instances of the run
	seed           *driver.Seed  // of a run that can be repeated; nil for others
}

// outcome is how an instance ended.
type outcome struct {
	mesh.Exit
	cpu time.Duration
}

// run executes a fresh instance of m to its end. Whatever the guest does, run
// returns soon after in.meter's context has ended.
func (m *module) run(in instance) (out outcome) {
	mem := &linear{limit: in.memory, image: m.image, shared: in.shared, now: in.now}
	start := time.Now()
	in.meter.resumed = start
	ctx := experimental.WithMemoryAllocator(withMeter(in.meter.ctx, in.meter), mem)
	err := m.call(ctx, in, start)
	in.meter.pause()
	if in.meter.stopped == nil && !in.meter.within() {
		in.meter.stopped = errFuel // it ended before it noticed
	}
	mem.Free() // no-op if the instance was closed
	out = judge(err, in.meter, mem)
	out.Fuel = in.meter.used()
	out.PeakMemory = mem.peak
	out.cpu = in.meter.cpu
	return out
}

func (m *module) call(ctx context.Context, in instance, start time.Time) (err error) {
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
	mod, err := m.runtime.InstantiateModule(ctx, m.compiled, in.moduleConfig(start))
	if err != nil {
		return err
	}
	defer mod.Close(ctx)
	in.meter.attach(mod)
	_, err = mod.ExportedFunction(startFunction).Call(ctx)
	return err
}

// moduleConfig is all that a guest gets: what is not named here does not exist for it.
func (in *instance) moduleConfig(start time.Time) wazero.ModuleConfig {
	stdin := in.stdin
	if _, ok := stdin.(*input); !ok {
		stdin = waitingReader{stdin, in.meter}
	}
	random, nanotime := in.world(start)
	c := wazero.NewModuleConfig().
		WithName("").         // many instances of one module at once
		WithStartFunctions(). // _start is called by call
		WithArgs(append([]string{in.name}, in.args...)...).
		WithStdin(stdin).
		WithStdout(waitingWriter{in.stdout, in.meter}).
		WithStderr(waitingWriter{in.stderr, in.meter}).
		WithRandSource(random).
		WithNanotime(func() int64 { return int64(nanotime()) + 1 }, sys.ClockResolution(time.Microsecond)).
		WithWalltime(func() (int64, int32) {
			d := nanotime()
			return Epoch + int64(d/time.Second), int32(d % time.Second)
		}, sys.ClockResolution(time.Microsecond)).
		WithNanosleep(in.meter.nanosleep).
		WithOsyield(in.meter.check)
	for _, kv := range in.env {
		if k, v, ok := strings.Cut(kv, "="); ok {
			c = c.WithEnv(k, v)
		}
	}
	return c
}

// world is where an instance's random bytes and time come from: of a run that can
// be repeated, its seed and its own progress; else this machine.
func (in *instance) world(start time.Time) (io.Reader, func() time.Duration) {
	if in.seed == nil {
		return random{crand.Reader, in.meter}, func() time.Duration { return time.Since(start) }
	}
	return random{mrand.NewChaCha8(*in.seed), in.meter}, in.meter.virtual
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
