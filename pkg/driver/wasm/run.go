package wasm

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

// Run implements driver.Runner. Streams have backpressure: nothing is read from
// stdin that the guest does not want, and a guest waits for its output to be taken.
// Run does not wait for a Read of stdin that is under way when the job ends; the
// caller ends it by closing stdin.
func (d *Driver) Run(ctx context.Context, w mesh.Workload, j driver.Job) (driver.Ran, error) {
	f, err := d.open(w.Spec.Digest)
	if err != nil {
		return driver.Ran{}, err
	}
	defer f.Close()
	p, release, err := d.worker(ctx, w.Owner)
	if err != nil {
		return driver.Ran{}, err
	}
	defer release()
	// Compiled first, so that the compiler's time has the compiler's limit.
	if err := d.compiling(ctx, p, askLoad, loadCall{Digest: w.Spec.Digest}, f); err != nil {
		return driver.Ran{}, err
	}
	s, err := newStreams()
	if err != nil {
		return driver.Ran{}, err
	}
	defer s.close()
	call := newGuestCall(w, d.runs.Add(1))
	call.Attached, call.Seed, call.Whole = true, j.Seed, j.Whole
	if j.Replay != nil {
		if len(j.Replay.Record) > driver.MaxRecord {
			return driver.Ran{}, mesh.Errorf(mesh.TooLarge, "a record of %d bytes; the most is %d", len(j.Replay.Record), driver.MaxRecord)
		}
		call.Repeat, call.Record = true, j.Replay.Record
	}
	network, offline, err := d.network(w)
	if err != nil {
		return driver.Ran{}, err
	}
	defer offline()
	q, err := p.ask(askJob, call, append([]*os.File{f, s.theirs, s.theirErrs}, network...)...)
	closeAll(append(network, s.theirs, s.theirErrs))
	if err != nil {
		return driver.Ran{}, err
	}
	s.copy(j.Stdin, j.Stdout, j.Stderr)
	ran, err := d.attend(ctx, p, q, call.Run)
	s.drain(ctx)
	return ran, err
}

// attend waits for the end of a job, which it stops when ctx ends.
func (d *Driver) attend(ctx context.Context, p *process, q *question, run uint64) (driver.Ran, error) {
	var ran driver.Ran
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = q.wait(context.Background(), &ran)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		if _, serr := stopRun(context.WithoutCancel(ctx), p, run, 0, done); serr != nil {
			p.kill("it did not stop a guest")
		}
		<-done
	}
	if err == nil {
		return saneRan(ran)
	}
	if p.isDead() {
		return driver.Ran{Exit: p.exit(), Input: emptyDigest, Cut: true}, nil
	}
	return driver.Ran{}, err
}

// emptyDigest is the SHA-256 of nothing: what is known of the input of a job whose
// worker died.
const emptyDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// streams connect a job with whoever runs it.
type streams struct {
	inout, errs       *net.UnixConn
	theirs, theirErrs *os.File
	out               sync.WaitGroup // copies of output
	wrote             chan struct{}  // closed when they are complete
}

func newStreams() (*streams, error) {
	s := &streams{wrote: make(chan struct{})}
	var err error
	if s.inout, s.theirs, err = pair(); err != nil {
		return nil, err
	}
	if s.errs, s.theirErrs, err = pair(); err != nil {
		s.inout.Close()
		s.theirs.Close()
		return nil, err
	}
	return s, nil
}

func (s *streams) copy(stdin io.Reader, stdout, stderr io.Writer) {
	go func() {
		_, _ = io.Copy(s.inout, stdin) // ends with the input, or with the job
		_ = s.inout.CloseWrite()
	}()
	s.out.Go(func() { forward(stdout, s.inout) })
	s.out.Go(func() { forward(stderr, s.errs) })
	go func() {
		s.out.Wait()
		close(s.wrote)
	}()
}

// forward copies output. When nobody takes it any more, the job's next write fails.
func forward(to io.Writer, from *net.UnixConn) {
	if _, err := io.Copy(to, from); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		_ = from.CloseRead()
	}
}

// drain waits for the rest of the output of a job that has ended. The worker has
// closed its end of both connections by then.
func (s *streams) drain(ctx context.Context) {
	select {
	case <-s.wrote:
	case <-ctx.Done(): // a caller that went away may never take it
	}
}

func (s *streams) close() {
	s.inout.Close()
	s.errs.Close()
}
