package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"time"
)

// target is where load goes: a TCP address, and the Host to ask it for.
type target struct{ addr, host string }

// sample is what one run of load came to.
type sample struct {
	requests int
	bytes    int64 // of bodies
	elapsed  time.Duration
	p50, p99 time.Duration
}

func (s sample) rate() float64      { return float64(s.requests) / s.elapsed.Seconds() }
func (s sample) gigabytes() float64 { return float64(s.bytes) / 1e9 / s.elapsed.Seconds() }

// generate keeps conns connections busy with one request after the other for d.
// Several connections are wrk's job where it is installed: it takes less of the
// processor that it shares with what is measured. One connection is always ours,
// because wrk's clock ticks too slowly for a tenth of a millisecond.
func generate(ctx context.Context, t target, path string, conns int, d time.Duration) (sample, error) {
	if conns > 1 && hasWrk() {
		return wrk(ctx, t, path, conns, d)
	}
	return generateHere(ctx, t, path, conns, d)
}

func hasWrk() bool { _, err := exec.LookPath("wrk"); return err == nil }

func generateHere(ctx context.Context, t target, path string, conns int, d time.Duration) (sample, error) {
	clients := make([]*client, conns)
	for i := range clients {
		c, err := dial(ctx, t, path)
		if err != nil {
			return sample{}, err
		}
		defer c.close()
		if _, err := c.get(); err != nil { // whatever is made on first use is made now
			return sample{}, err
		}
		clients[i] = c
	}
	stop := make(chan struct{})
	timer := time.AfterFunc(d, func() { close(stop) })
	defer timer.Stop()
	samples, errs := make([]sample, conns), make([]error, conns)
	took := make([][]time.Duration, conns)
	began := time.Now()
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Go(func() { samples[i], took[i], errs[i] = c.loop(ctx, stop) })
	}
	wg.Wait()
	out := sample{elapsed: time.Since(began)}
	for _, s := range samples {
		out.requests += s.requests
		out.bytes += s.bytes
	}
	all := slices.Concat(took...)
	slices.Sort(all)
	out.p50, out.p99 = percentile(all, 0.5), percentile(all, 0.99)
	return out, errors.Join(errs...)
}

// client is one keep-alive connection that repeats one request.
type client struct {
	conn    net.Conn
	in      *bufio.Reader
	request []byte
}

const requestLimit = 30 * time.Second

func dial(ctx context.Context, t target, path string) (*client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", t.addr)
	if err != nil {
		return nil, err
	}
	return &client{conn, bufio.NewReaderSize(conn, 64<<10), fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, t.host)}, nil
}

func (c *client) close() { c.conn.Close() }

// loop sends requests until stop is closed or ctx ends.
func (c *client) loop(ctx context.Context, stop <-chan struct{}) (s sample, took []time.Duration, err error) {
	defer context.AfterFunc(ctx, c.close)()
	took = make([]time.Duration, 0, 1<<16)
	for {
		select {
		case <-stop:
			return s, took, nil
		case <-ctx.Done():
			return s, took, ctx.Err()
		default:
		}
		if s.requests%64 == 0 { // a deadline costs; a stuck run must still end
			c.conn.SetDeadline(time.Now().Add(requestLimit))
		}
		began := time.Now()
		n, err := c.get()
		if err != nil {
			return s, took, err
		}
		took = append(took, time.Since(began))
		s.requests++
		s.bytes += n
	}
}

// get sends the request and reads the answer, which must be a 200, and returns the
// length of its body.
func (c *client) get() (int64, error) {
	if _, err := c.conn.Write(c.request); err != nil {
		return 0, err
	}
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return 0, fmt.Errorf("no answer: %w", err)
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200")) {
		return 0, fmt.Errorf("answered %q", bytes.TrimSpace(line))
	}
	length, chunked := int64(-1), false
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, fmt.Errorf("the header broke off: %w", err)
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			break
		}
		if v, ok := field(line, "Content-Length:"); ok {
			if length, err = strconv.ParseInt(string(v), 10, 64); err != nil {
				return 0, err
			}
		} else if v, ok := field(line, "Transfer-Encoding:"); ok {
			chunked = string(v) == "chunked"
		}
	}
	switch {
	case chunked:
		return c.chunks()
	case length < 0:
		return 0, errors.New("the answer has no length")
	}
	return length, c.discard(length)
}

// field is the value of a header line, if it is the one named.
func field(line []byte, name string) ([]byte, bool) {
	if len(line) < len(name) || !bytes.EqualFold(line[:len(name)], []byte(name)) {
		return nil, false
	}
	return bytes.TrimSpace(line[len(name):]), true
}

// chunks reads a chunked body without trailers.
func (c *client) chunks() (total int64, err error) {
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return total, fmt.Errorf("the body broke off: %w", err)
		}
		size, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 64)
		if err != nil {
			return total, err
		}
		if err := c.discard(size + 2); err != nil { // and the line's end after it
			return total, err
		}
		if total += size; size == 0 {
			return total, nil
		}
	}
}

func (c *client) discard(n int64) error {
	for n > 0 {
		got, err := c.in.Discard(int(min(n, 1<<20)))
		if n -= int64(got); err != nil {
			return fmt.Errorf("the body broke off: %w", err)
		}
	}
	return nil
}

// firstAnswer asks on new connections until the answer is a 200, as somebody who
// waits for a service does, and returns how long that took.
func firstAnswer(ctx context.Context, t target, path string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	began := time.Now()
	for {
		err := once(ctx, t, path)
		if err == nil {
			return time.Since(began), nil
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return 0, fmt.Errorf("no 200 from %s within %s: %w", t.host, requestLimit, err)
		}
	}
}

func once(ctx context.Context, t target, path string) error {
	c, err := dial(ctx, t, path)
	if err != nil {
		return err
	}
	defer c.close()
	c.conn.SetDeadline(time.Now().Add(time.Second))
	_, err = c.get()
	return err
}
