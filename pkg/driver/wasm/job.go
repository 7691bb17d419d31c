package wasm

import (
	"context"
	"io"
	"net"
	"strings"
	"time"

	"peercompute/pkg/driver"
	"peercompute/pkg/driver/wasm/internal/fetch"
	"peercompute/pkg/mesh"
)

// job runs one instance of a module from its start to its end.
type job struct {
	figures
	call   guestCall
	shared *budget
	net    *fetch.Remote // what it may reach; nil = nothing
	ctx    context.Context
	stop   context.CancelCauseFunc
	done   chan struct{} // closed when the instance has ended
}

func newJob(c guestCall, shared *budget) *job {
	ctx, stop := context.WithCancelCause(context.Background())
	return &job{call: c, shared: shared, ctx: ctx, stop: stop, done: make(chan struct{})}
}

// end says that the job will not run any more.
func (j *job) end() {
	j.stop(errStopped)
	close(j.done)
}

// shutdown ends the job. WASI has no signals, so there is no polite way: grace is
// time to end by itself.
func (j *job) shutdown(grace time.Duration) {
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-j.done:
	case <-t.C:
		j.stop(errStopped)
		<-j.done
	}
}

// run executes the job with what give adds to its instance: streams above all.
func (j *job) run(m *module, give func(*meter) instance) mesh.Exit {
	deadline := time.Now().Add(j.call.Timeout)
	ctx, cancel := context.WithDeadlineCause(j.ctx, deadline, errDeadline)
	defer cancel()
	meter := newMeter(ctx, deadline, &pace{milli: j.call.MilliCPU, now: time.Now, last: time.Now()}, j.call.Fuel)
	meter.live = &j.fuel
	in := give(meter)
	in.name, in.args, in.env = j.call.Name, j.call.Args, j.call.Env
	in.scratch, in.wall, in.net = j.call.Scratch, j.call.Wall, j.net
	in.memory, in.shared, in.now, in.meter = j.call.Memory, j.shared, &j.memory, meter
	j.active.Add(1)
	out := m.run(in)
	j.active.Add(-1)
	j.add(out)
	return out.Exit
}

// attached runs the job on connections to whoever asked for it, which the caller closes.
func (j *job) attached(m *module, inout, errs *net.UnixConn) (driver.Ran, error) {
	// A wait for input, or for somebody to take output, ends with the job's time.
	wake := func() {
		_ = inout.SetDeadline(time.Unix(1, 0))
		_ = errs.SetDeadline(time.Unix(1, 0))
	}
	stop := context.AfterFunc(j.ctx, wake)
	defer stop()
	end := time.Now().Add(j.call.Timeout)
	_ = inout.SetDeadline(end)
	_ = errs.SetDeadline(end)
	record := driver.NewRecord(driver.MaxRecord)
	if j.call.Repeat {
		var err error
		if record, err = driver.Replay(j.call.Record); err != nil {
			return driver.Ran{}, mesh.Errorf(mesh.Invalid, "the run cannot be repeated: %s", err)
		}
	}
	var stdin *input
	var ran driver.Ran
	ran.Exit = j.run(m, func(mt *meter) instance {
		stdin = newInput(inout, mt, j.call.Whole, record)
		return instance{stdin: stdin, stdout: inout, stderr: errs, seed: &j.call.Seed, record: record}
	})
	ran.Input, ran.InputSize = stdin.digest(), stdin.size
	if !j.call.Repeat {
		log, complete := record.Bytes()
		ran.Record, ran.Cut = log, !complete
	}
	return ran, nil
}

// logged runs the job without input and with its output in the log.
func (j *job) logged(m *module, log *lineLog) mesh.Exit {
	stdout, stderr := log.writer(mesh.Stdout), log.writer(mesh.Stderr)
	exit := j.run(m, func(*meter) instance {
		return instance{stdin: strings.NewReader(""), stdout: stdout, stderr: stderr}
	})
	if exit.Trace != "" {
		_, _ = io.WriteString(stderr, exit.Reason+"\n"+exit.Trace+"\n") // never fails
	}
	stdout.flush()
	stderr.flush()
	return exit
}
