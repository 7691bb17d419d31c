package wasm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"sync"
	"time"

	"peercompute/pkg/driver/wasm/internal/wasi"
	"peercompute/pkg/mesh"
)

// server keeps one instance of a module running and passes requests on to it. The
// instance begins with a request and ends when there was none for a while. How many
// requests are under way, how many wait and for how long is the service's business.
type server struct {
	*service
	news func(idle bool) // tells peerd

	mu       sync.Mutex
	inst     *living // nil = none runs
	failures int     // in a row
	resting  time.Time
	why      string // it rests
	under    int    // requests under way
	timer    *time.Timer
	day      int64  // days since 1970
	burnt    uint64 // units on that day, by instances that have ended, and by earlier runs
	silent   int    // requests in a row that got no answer
}

// living is an instance that serves.
type living struct {
	listener *wasi.Listener
	stop     context.CancelCauseFunc
	done     chan struct{} // closed when it has ended
	out      outcome       // valid then
	began    time.Time
	life     context.Context // ends with it

	mu   sync.Mutex
	idle []*wasi.HostConn // open, and without a request
}

func (l *living) ctx() context.Context { return l.life }

// Why an instance was stopped while its service goes on.
var (
	errIdle  = errors.New("no request for a while")
	errStuck = errors.New("it does not answer")
)

const (
	serverBacklog = 128
	maxSilent     = 3                // requests without an answer until the instance is started anew
	stableServer  = 10 * time.Second // an instance that lived so long makes earlier failures forgotten
)

func newServer(c guestCall, l Limits, m *module, shared *budget, log *lineLog, news func(bool)) *server {
	s := &server{service: newService(c, l, m, shared, log), news: news, day: today(), burnt: c.Burnt}
	s.reply = s.answer
	s.after = s.end
	return s
}

// firstWait is how long a server may take to look for its first connection.
const firstWait = 20 * time.Second

// first starts the instance for the first time, so that a program that does not
// serve is met when it is deployed.
func (s *server) first() error {
	if s.burnt >= s.call.FuelDay { // it ran today; the first request of tomorrow starts it
		return nil
	}
	in, err := s.awake()
	if err != nil {
		return err
	}
	defer s.sleepy(in)
	t := time.NewTimer(firstWait)
	defer t.Stop()
	select {
	case <-in.listener.Ready():
		return nil
	case <-in.done:
		why := in.out.Reason
		if why == "" {
			why = fmt.Sprintf("exit status %d", in.out.Code)
		}
		return mesh.Errorf(mesh.Internal, "the server ended before it listened at descriptor %d: %s", wasi.FirstFD, why).
			WithHint("a program for --serve accepts connections at the descriptor that LISTEN_FDS promises; one that answers a single request (CGI) is deployed without --serve")
	case <-t.C:
		return mesh.Errorf(mesh.Timeout, "the server did not listen at descriptor %d within %s", wasi.FirstFD, firstWait)
	}
}

// end stops the instance; the service takes no more requests by then.
func (s *server) end() {
	s.mu.Lock()
	in := s.inst
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Unlock()
	if in != nil {
		in.stop(errStopped)
		<-in.done
	}
}

// today is the number of the day, which ends at midnight UTC.
func today() int64 { return time.Now().Unix() / 86400 }

// awake is the instance, started if none runs. The caller calls sleepy when its
// request is done.
func (s *server) awake() (*living, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
	if s.inst == nil {
		if err := s.start(); err != nil {
			return nil, err
		}
	}
	s.under++
	return s.inst, nil
}

// start begins an instance. s.mu is held.
func (s *server) start() error {
	if err := context.Cause(s.ctx); err != nil {
		return err
	}
	if wait := time.Until(s.resting); wait > 0 {
		return mesh.Errorf(mesh.Overloaded, "%s; it is started again in %s", s.why, max(time.Second, wait.Round(time.Second)))
	}
	if d := today(); d != s.day {
		s.day, s.burnt = d, 0
	}
	if s.burnt >= s.call.FuelDay {
		s.rest(time.Unix((s.day+1)*86400, 0), fmt.Sprintf("it has burnt its %d units of fuel of today", s.call.FuelDay))
		return s.start()
	}
	ctx, stop := context.WithCancelCause(s.ctx)
	in := &living{listener: wasi.NewListener(serverBacklog), stop: stop, done: make(chan struct{}), began: time.Now(), life: ctx}
	meter := newMeter(ctx, time.Time{}, s.pace, s.call.FuelDay-s.burnt)
	meter.limitRate(s.call.Fuel)
	meter.live = &s.fuel
	stdout, stderr := s.log.writer(mesh.Stdout), s.log.writer(mesh.Stderr)
	s.active.Add(1)
	go func() {
		in.out = s.module.run(instance{
			name: s.call.Name, args: s.call.Args, env: append([]string{"LISTEN_FDS=1"}, s.call.Env...),
			stdin: nothing{}, stdout: stdout, stderr: stderr, listener: in.listener,
			memory: s.call.Memory, scratch: s.call.Scratch, wall: s.call.Wall, net: s.net, shared: s.shared, now: &s.memory, meter: meter,
		})
		s.active.Add(-1)
		stdout.flush()
		stderr.flush()
		s.add(in.out)
		s.ended(in, context.Cause(ctx))
		stop(errStopped)
		close(in.done)
	}()
	s.inst = in
	s.news(false)
	return nil
}

// rest makes requests be refused until a time. s.mu is held.
func (s *server) rest(until time.Time, why string) { s.resting, s.why = until, why }

// ended notes how an instance came to its end, and what follows.
func (s *server) ended(in *living, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inst == in {
		s.inst = nil
		s.news(true)
	}
	if today() == s.day {
		s.burnt += in.out.Fuel
	}
	switch {
	case errors.Is(cause, errIdle), errors.Is(cause, errStopped):
		s.failures = 0
		return
	case time.Since(in.began) > stableServer:
		s.failures = 0
	}
	why := in.out.Reason
	switch {
	case errors.Is(cause, errStuck):
		why = errStuck.Error()
	case why == "":
		why = fmt.Sprintf("exit status %d", in.out.Code)
	}
	s.failures++
	pause := min(100*time.Millisecond<<min(s.failures-1, 10), 30*time.Second)
	s.rest(time.Now().Add(pause), "the server ended: "+why)
	s.log.note("the server ended: %s; it is started again with the next request after %s%s", why, pause, traceOf(in.out))
}

func traceOf(o outcome) string {
	if o.Trace == "" {
		return ""
	}
	return "\n" + o.Trace
}

// sleepy ends what awake began. An instance without a request is stopped after a while.
func (s *server) sleepy(in *living) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.under--; s.under > 0 || s.inst != in || in == nil {
		return
	}
	if s.timer == nil {
		s.timer = time.AfterFunc(s.call.Idle, s.nap)
		return
	}
	s.timer.Reset(s.call.Idle)
}

func (s *server) nap() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.under == 0 && s.inst != nil {
		s.inst.stop(errIdle)
	}
}

// answer passes a request on.
func (s *server) answer(w http.ResponseWriter, r *http.Request) {
	in, err := s.awake()
	if err != nil {
		busy(w, mesh.AsError(err).Msg)
		return
	}
	defer s.sleepy(in)
	x := &exchange{s: s, in: in, w: w, r: r}
	err = x.do()
	switch {
	case err == nil:
		s.mu.Lock()
		s.silent = 0
		s.mu.Unlock()
		return
	case errors.Is(err, errSilent):
		s.suspect(in)
	}
	if x.started {
		panic(http.ErrAbortHandler)
	}
	if r.Context().Err() == nil {
		s.log.note("%s %s: %s", r.Method, clip(r.URL.Path, 200), err)
	}
	status := http.StatusBadGateway
	if errors.Is(err, errSilent) {
		status = http.StatusGatewayTimeout
	}
	http.Error(w, "This program did not answer: "+err.Error()+".", status)
}

// suspect judges an instance that left a request without an answer. One that has
// not even looked for work all that time is stuck; one that does look, but answers
// nobody, is stuck as well.
func (s *server) suspect(in *living) {
	s.mu.Lock()
	s.silent++
	stuck := time.Since(in.listener.Seen()) > s.call.Timeout/2 || s.silent >= maxSilent
	if stuck {
		s.silent = 0
	}
	s.mu.Unlock()
	if stuck {
		in.stop(errStuck)
	}
}

// limitRate holds an instance to so many units a second, on average.
func (m *meter) limitRate(unitsPerSecond uint64) {
	if unitsPerSecond > 0 {
		m.rate, m.burning = unitsPerSecond, &pace{milli: 1000, now: time.Now, last: time.Now()}
	}
}

// ahead is how long an instance with a rate has to wait.
func (m *meter) ahead() time.Duration {
	if m.rate == 0 {
		return 0
	}
	used := m.used()
	more := used - m.billed
	m.billed = used
	return m.burning.spend(time.Duration(min(float64(more)/float64(m.rate)*float64(time.Second), math.MaxInt64/2)))
}
