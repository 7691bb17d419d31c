package wasm

import (
	"context"
	"io"
	"net"
	"strings"
	"time"

	"peercompute/pkg/mesh"
)

// job runs one instance of a module from its start to its end.
type job struct {
	figures
	call   guestCall
	shared *budget
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

// run executes the job with these streams.
func (j *job) run(m *module, stdin io.Reader, stdout, stderr io.Writer) mesh.Exit {
	deadline := time.Now().Add(j.call.Timeout)
	ctx, cancel := context.WithDeadlineCause(j.ctx, deadline, errDeadline)
	defer cancel()
	j.active.Add(1)
	out := m.run(instance{
		name: j.call.Name, args: j.call.Args, env: j.call.Env,
		stdin: stdin, stdout: stdout, stderr: stderr,
		memory: j.call.Memory, shared: j.shared, now: &j.memory,
		meter: newMeter(ctx, deadline, &pace{milli: j.call.MilliCPU, now: time.Now, last: time.Now()}, j.call.Fuel),
	})
	j.active.Add(-1)
	j.add(out)
	if out.trace != "" {
		_, _ = io.WriteString(stderr, out.Reason+"\n"+out.trace+"\n") // the stream may be gone, with its reader
	}
	return out.Exit
}

// attached runs the job on connections to whoever asked for it, which the caller closes.
func (j *job) attached(m *module, inout, errs *net.UnixConn) mesh.Exit {
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
	return j.run(m, inout, inout, errs)
}

// logged runs the job without input and with its output in the log.
func (j *job) logged(m *module, log *lineLog) mesh.Exit {
	stdout, stderr := log.writer(), log.writer()
	exit := j.run(m, strings.NewReader(""), stdout, stderr)
	stdout.flush()
	stderr.flush()
	return exit
}
