package supervisor

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

// clinic says how the tasks of a world answer health checks.
type clinic struct {
	mu     sync.Mutex
	status int // of HTTP; 0 = no answer
	code   int // of a command
	asked  int
	ports  []uint16
}

func (c *clinic) set(status, code int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status, c.code = status, code
}

func (c *clinic) first() (port uint16) { c.mu.Lock(); defer c.mu.Unlock(); return c.ports[0] }

func (c *clinic) questions() int { c.mu.Lock(); defer c.mu.Unlock(); return c.asked }

// patient is a task that answers HTTP, on any port, and runs commands.
type patient struct {
	*fakeTask
	c *clinic
}

var (
	_ driver.PortDialer = patient{}
	_ driver.Prober     = patient{}
)

func (p patient) Dial(ctx context.Context) (net.Conn, error) { return p.DialPort(ctx, 80) }

func (p patient) DialPort(_ context.Context, port uint16) (net.Conn, error) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	p.c.asked++
	p.c.ports = append(p.c.ports, port)
	if closed(p.done) {
		return nil, mesh.Errorf(mesh.Unavailable, "nothing listens")
	}
	ours, theirs := net.Pipe()
	status := p.c.status
	go func() {
		defer theirs.Close()
		if _, err := http.ReadRequest(bufio.NewReader(theirs)); err != nil {
			return
		}
		if status == 0 {
			_, _ = io.Copy(io.Discard, theirs) // never answers
			return
		}
		fmt.Fprintf(theirs, "HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n", status)
	}()
	return ours, nil
}

func (p patient) Probe(context.Context, []string) (int, error) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	p.c.asked++
	return p.c.code, nil
}

func checked(restart mesh.Restart, h mesh.Health) Record {
	r := record(restart)
	if h.Interval == 0 {
		h.Interval = 10 * time.Millisecond // below what a spec may say, for the test
	}
	h = h.WithDefaults()
	r.Workload.Spec.Health = &h
	return r
}

func (l *life) wantHealth(t *testing.T, what string, ok func(mesh.Status) bool) mesh.Status {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		st, changed, known := l.Status(id)
		if known && ok(st) {
			return st
		}
		if !known {
			changed = nil
		}
		select {
		case <-changed:
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			t.Fatalf("the status is %+v, want %s", st, what)
		}
	}
}

// A workload is ready once its check passes, and no earlier.
func TestReadyIsHealthy(t *testing.T) {
	st, w := openStore(t), newWorld()
	w.clinic = &clinic{status: 503}
	l := liveFor(t, st, w, time.Minute)
	put(t, st, checked(mesh.RestartAlways, mesh.Health{Check: mesh.CheckHTTP, Path: "/"}))
	l.Kick(id)
	l.want(t, mesh.Starting)
	for deadline := time.Now().Add(20 * time.Second); w.clinic.questions() < 3; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is not asked")
		}
	}
	if st, _, _ := l.Status(id); st.State != mesh.Starting {
		t.Fatalf("it is %s while its check fails", st.State)
	}
	w.clinic.set(204, 0)
	if st := l.want(t, mesh.Running); st.Health != mesh.HealthOK {
		t.Fatalf("running, and its health is %q", st.Health)
	}
}

// One that never becomes healthy fails, and the reason says what it answered.
func TestNeverHealthyFails(t *testing.T) {
	for _, c := range []struct {
		health mesh.Health
		want   string
	}{
		{mesh.Health{Check: mesh.CheckHTTP, Path: "/up"}, "did not become healthy (GET /up answered 500)"},
		{mesh.Health{Check: mesh.CheckCommand, Command: []string{"/check"}}, "did not become healthy (the command exited with 4)"},
	} {
		st, w := openStore(t), newWorld()
		w.clinic = &clinic{status: 500, code: 4}
		put(t, st, checked(mesh.RestartAlways, c.health))
		if got := liveFor(t, st, w, 2*time.Second).want(t, mesh.Failed); !strings.Contains(got.Reason, c.want) {
			t.Errorf("the reason is %q, want one with %q", got.Reason, c.want)
		}
	}
}

// What fails its check is shown so at once, and started again after so many
// failures, as its policy says.
func TestUnhealthyIsStartedAgain(t *testing.T) {
	for _, c := range []struct {
		policy mesh.Restart
		health mesh.Health
		why    string
	}{
		{mesh.RestartAlways, mesh.Health{Check: mesh.CheckHTTP, Path: "/"}, "GET / answered 500"},
		{mesh.RestartOnFailure, mesh.Health{Check: mesh.CheckCommand, Command: []string{"/check"}}, "the command exited with 3"},
		{mesh.RestartNo, mesh.Health{Check: mesh.CheckHTTP, Path: "/", Port: 81}, "GET / answered 500"},
	} {
		st, w := openStore(t), newWorld()
		w.clinic = &clinic{status: 200}
		put(t, st, checked(c.policy, c.health))
		l := liveFor(t, st, w, time.Minute)
		l.wantHealth(t, "healthy", func(s mesh.Status) bool { return s.Health == mesh.HealthOK })
		w.clinic.set(500, 3)
		until(t, mesh.Unhealthy(c.why), func() bool { // which it is not for long
			return l.was(func(s mesh.Status) bool { return s.Health == mesh.Unhealthy(c.why) })
		})
		before := w.clinic.questions()
		if c.policy == mesh.RestartNo {
			for deadline := time.Now().Add(20 * time.Second); w.clinic.questions() < before+5; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("it is not asked any more")
				}
			}
			w.clinic.set(200, 0)
			l.wantHealth(t, "healthy again", func(s mesh.Status) bool { return s.Health == mesh.HealthOK })
			if w.starts(id) != 1 {
				t.Errorf("policy no: started %d times", w.starts(id))
			}
			if port := w.clinic.first(); port != 81 {
				t.Errorf("asked on port %d, want 81", port)
			}
			continue
		}
		l.wantHealth(t, "started again", func(s mesh.Status) bool { return s.Restarts > 0 })
		w.clinic.set(200, 0)
		l.wantHealth(t, "healthy again", func(s mesh.Status) bool { return s.Health == mesh.HealthOK && s.State == mesh.Running })
		if w.starts(id) < 2 {
			t.Errorf("policy %s: started %d times", c.policy, w.starts(id))
		}
	}
}

// A check that is not answered ends by its own time.
func TestCheckHasATimeout(t *testing.T) {
	w := newWorld()
	task := patient{&fakeTask{w: w, id: id, done: make(chan struct{})}, &clinic{}}
	h := mesh.Health{Check: mesh.CheckHTTP, Path: "/", Timeout: 20 * time.Millisecond}.WithDefaults()
	if why := ask(context.Background(), task, h); why != "GET / was not answered within 20ms" {
		t.Errorf("got %q", why)
	}
	if why := ask(context.Background(), task, mesh.Health{}.WithDefaults()); why == "" {
		t.Error("a check of no kind has passed")
	}
	if why := ask(context.Background(), task.fakeTask, mesh.Health{Check: mesh.CheckCommand, Command: []string{"x"}}.WithDefaults()); why == "" {
		t.Error("a command has passed where none can be run")
	}
}
