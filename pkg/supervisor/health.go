package supervisor

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

// maxHealthHead bounds what is read of an answer to a health check, in bytes. The
// body is never read.
const maxHealthHead = 64 << 10

// ask makes one health check of a run. It returns why the run is not well, or "".
func ask(ctx context.Context, t driver.Task, h mesh.Health) string {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	switch h.Check {
	case mesh.CheckHTTP:
		return askHTTP(ctx, t, h)
	case mesh.CheckTCP:
		c, why := dialHealth(ctx, t, h)
		if why == "" {
			c.Close()
		}
		return why
	case mesh.CheckCommand:
		p, can := t.(driver.Prober)
		if !can {
			return "its runtime cannot run a command inside it"
		}
		status, err := p.Probe(ctx, h.Command)
		switch {
		case ctx.Err() != nil || mesh.KindOf(err) == mesh.Timeout:
			return fmt.Sprintf("the command has not ended within %s", h.Timeout)
		case err != nil:
			return mesh.AsError(err).Msg
		case status != 0:
			return fmt.Sprintf("the command exited with %d", status)
		}
		return ""
	}
	return fmt.Sprintf("the check %q is not known", h.Check)
}

func dialHealth(ctx context.Context, t driver.Task, h mesh.Health) (net.Conn, string) {
	dial := t.Dial
	if h.Port != 0 {
		p, can := t.(driver.PortDialer)
		if !can {
			return nil, "its runtime reaches one port only"
		}
		dial = func(ctx context.Context) (net.Conn, error) { return p.DialPort(ctx, h.Port) }
	}
	c, err := dial(ctx)
	switch {
	case err == nil:
		return c, ""
	case ctx.Err() != nil:
		return nil, fmt.Sprintf("it took no connection within %s", h.Timeout)
	}
	return nil, mesh.AsError(err).Msg
}

func askHTTP(ctx context.Context, t driver.Task, h mesh.Health) string {
	c, why := dialHealth(ctx, t, h)
	if why != "" {
		return why
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })() // not every connection has deadlines
	_, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: peercompute-health\r\nAccept: */*\r\nConnection: close\r\n\r\n", h.Path)
	var res *http.Response
	if err == nil {
		res, err = http.ReadResponse(bufio.NewReader(io.LimitReader(c, maxHealthHead)), nil)
	}
	switch {
	case ctx.Err() != nil:
		return fmt.Sprintf("GET %s was not answered within %s", h.Path, h.Timeout)
	case err != nil:
		return fmt.Sprintf("GET %s was not answered in HTTP", h.Path)
	case res.StatusCode < 200 || res.StatusCode > 399:
		return fmt.Sprintf("GET %s answered %d", h.Path, res.StatusCode)
	}
	return ""
}

// sick is how a watched run came to be unwell.
type sick struct {
	why  string
	well time.Duration // from its first good check to the first bad one of the last row
}

// untilSick watches a run's health until it has exited or is to be started again.
func (k *keeper) untilSick(ctx context.Context, t driver.Task, s mesh.Spec, exited <-chan struct{}) *sick {
	if s.Health == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	found := make(chan *sick, 1)
	go func() { found <- k.watchHealth(ctx, t, s) }()
	select {
	case <-exited:
		cancel()
		<-found
		return nil
	case ill := <-found:
		return ill
	}
}

// watchHealth asks the ready run t again and again and shows what it says. It
// returns when so many checks in a row have failed that the run is to be started
// again, or with nil when ctx ends.
func (k *keeper) watchHealth(ctx context.Context, t driver.Task, s mesh.Spec) *sick {
	h := s.Health.WithDefaults()
	began := time.Now()
	bad, well := 0, time.Duration(0)
	for sleep(ctx, h.Interval) {
		if z, sleeps := t.(driver.Sleeper); sleeps && z.Idle() {
			continue // a check would wake it, and keep it awake for ever
		}
		why := ask(ctx, t, h)
		if ctx.Err() != nil {
			break
		}
		if why == "" {
			bad = 0
			k.showHealth(mesh.HealthOK)
			continue
		}
		if bad++; bad == 1 {
			well = time.Since(began)
		}
		k.showHealth(mesh.Unhealthy(why))
		if bad >= h.Retries && s.Restart != mesh.RestartNo {
			return &sick{why, well}
		}
	}
	return nil
}

func (k *keeper) showHealth(text string) {
	k.mu.Lock()
	same := k.status.Health == text
	k.mu.Unlock()
	if !same {
		k.update(func(s *mesh.Status) { s.Health = text })
	}
}
