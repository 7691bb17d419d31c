package wasm

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"peercompute/pkg/driver/wasm/internal/wasi"
	"peercompute/pkg/mesh"
)

// exchange is one request to a server and its answer.
type exchange struct {
	s  *server
	in *living
	w  http.ResponseWriter
	r  *http.Request

	started bool // the head of the answer was passed on
	timer   *time.Timer
	late    chan struct{} // closed when the server did not go on in time
}

var (
	errSilent = errors.New("no answer in time")
	errGone   = errors.New("the server ended")
)

var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 8<<10) }}

var chunks = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// nothing is an input without content.
type nothing struct{}

func (nothing) Read([]byte) (int, error) { return 0, io.EOF }

// do passes the request on and its answer back. An error before the head of the
// answer was passed on leaves the client to be told.
func (x *exchange) do() error {
	ctx, cancel := context.WithCancel(x.r.Context())
	defer cancel()
	x.late = make(chan struct{})
	x.timer = time.AfterFunc(x.s.call.Timeout, sync.OnceFunc(func() { close(x.late); cancel() }))
	defer x.timer.Stop()
	select {
	case <-x.in.listener.Ready():
	case <-x.in.done:
		return x.why(errGone)
	case <-ctx.Done():
		return x.why(context.Cause(ctx))
	}
	c, reused := x.in.take()
	for {
		if c == nil {
			var err error
			if c, err = x.in.listener.Dial(); err != nil {
				return x.why(err)
			}
		}
		whole, begun, err := x.over(ctx, c)
		if whole && err == nil {
			x.in.put(c)
			return nil
		}
		c.Close()
		// A connection that had been idle may have been closed just then.
		if err != nil && reused && !begun && x.repeatable() && ctx.Err() == nil {
			c, reused = nil, false
			continue
		}
		return x.why(err)
	}
}

// repeatable reports whether the request may be sent again if nothing came of it.
func (x *exchange) repeatable() bool {
	return x.r.ContentLength == 0 && (x.r.Method == http.MethodGet || x.r.Method == http.MethodHead)
}

// why tells the reasons for a failure apart.
func (x *exchange) why(err error) error {
	if err == nil {
		return nil
	}
	select {
	case <-x.late:
		return errSilent
	default:
	}
	if errors.Is(err, wasi.ErrRefused) { // it has ended, or is just about to
		t := time.NewTimer(endWait)
		defer t.Stop()
		select {
		case <-x.in.done:
		case <-t.C:
		}
	}
	select {
	case <-x.in.done:
		return errGone
	default:
	}
	return err
}

// over does the exchange over one connection. whole says that the connection is
// fit for another, begun that something of the answer came.
func (x *exchange) over(ctx context.Context, c *wasi.HostConn) (whole, begun bool, err error) {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	gone := context.AfterFunc(x.in.ctx(), func() { c.Close() })
	defer gone()
	out := x.request()
	sent := make(chan error, 1)
	if out.Body == nil {
		sent <- writeRequest(c, out)
	} else {
		go func() { sent <- writeRequest(c, out) }()
	}
	br := readers.Get().(*bufio.Reader)
	br.Reset(c)
	defer func() {
		br.Reset(nil)
		readers.Put(br)
	}()
	if _, err := br.Peek(1); err != nil {
		return false, false, errors.Join(errGone, err)
	}
	res, err := http.ReadResponse(br, out)
	for err == nil && res.StatusCode < 200 && res.StatusCode != http.StatusSwitchingProtocols {
		res, err = http.ReadResponse(br, out)
	}
	if err != nil {
		return false, true, mesh.Errorf(mesh.Invalid, "its answer is malformed").Because(err)
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusSwitchingProtocols {
		return false, true, x.splice(c, br, res)
	}
	x.started = true
	if err := x.pass(res, br); err != nil {
		return false, true, err
	}
	select {
	case err := <-sent:
		return err == nil && !res.Close && br.Buffered() == 0, true, nil
	default: // it answered before it had read everything
		return false, true, nil
	}
}

func writeRequest(c *wasi.HostConn, r *http.Request) error {
	w := bufio.NewWriterSize(c, 4<<10)
	if err := r.Write(w); err != nil {
		return err
	}
	return w.Flush()
}

// request is what the server gets: without what is about the connection of the
// client.
func (x *exchange) request() *http.Request {
	out := &http.Request{
		Method: x.r.Method, URL: x.r.URL, Host: x.r.Host, Header: x.r.Header.Clone(), Body: x.r.Body,
		ContentLength: x.r.ContentLength, TransferEncoding: x.r.TransferEncoding,
	}
	upgrade := upgradeOf(x.r.Header)
	dropHops(out.Header)
	if upgrade != "" {
		out.Header.Set("Connection", "Upgrade")
		out.Header.Set("Upgrade", upgrade)
	}
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header.Set("User-Agent", "") // none, rather than one of our own
	}
	if x.r.ContentLength == 0 {
		out.Body = nil
	}
	return out
}

// dropHops removes what is about one connection.
func dropHops(h http.Header) {
	for _, list := range h["Connection"] {
		for name := range strings.SplitSeq(list, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range []string{"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Transfer-Encoding", "Upgrade"} {
		h.Del(name)
	}
}

func upgradeOf(h http.Header) string {
	for _, list := range h["Connection"] {
		for name := range strings.SplitSeq(list, ",") {
			if strings.EqualFold(strings.TrimSpace(name), "upgrade") {
				return h.Get("Upgrade")
			}
		}
	}
	return ""
}

// progress puts off the time at which the exchange is given up.
func (x *exchange) progress(rc *http.ResponseController) {
	if x.timer.Reset(x.s.call.Timeout) {
		last := time.Now().Add(x.s.call.Timeout + ioSlack)
		_ = rc.SetWriteDeadline(last) // fails only where a connection has none
		_ = rc.SetReadDeadline(last)
	}
}

// pass writes the answer to the client as it comes.
func (x *exchange) pass(res *http.Response, br *bufio.Reader) error {
	h := x.w.Header()
	dropHops(res.Header)
	for k, v := range res.Header {
		h[k] = v
	}
	for k := range res.Trailer {
		h.Add("Trailer", k)
	}
	rc := http.NewResponseController(x.w)
	if x.r.ContentLength != 0 {
		_ = rc.EnableFullDuplex() // it may answer while it still reads
	}
	x.w.WriteHeader(res.StatusCode)
	buf := chunks.Get().(*[32 << 10]byte)
	defer chunks.Put(buf)
	for {
		if br.Buffered() == 0 {
			_ = rc.Flush() // an error shows at the next write
		}
		n, err := res.Body.Read(buf[:])
		if n > 0 {
			x.progress(rc)
			if _, err := x.w.Write(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	for k, v := range res.Trailer {
		h[k] = v
	}
	return nil
}

// splice joins the two connections of a request that was upgraded, until one ends.
func (x *exchange) splice(c *wasi.HostConn, br *bufio.Reader, res *http.Response) error {
	if !strings.EqualFold(res.Header.Get("Upgrade"), upgradeOf(x.r.Header)) || res.Header.Get("Upgrade") == "" {
		return mesh.Errorf(mesh.Invalid, "it switched to a protocol that was not asked for")
	}
	conn, buffered, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		return err
	}
	x.started = true
	x.timer.Stop() // either side ends it
	defer conn.Close()
	_ = conn.SetDeadline(time.Time{})
	if err := res.Write(conn); err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := io.Copy(c, buffered.Reader)
		if err != nil {
			c.Close()
		}
		_ = c.CloseWrite()
	})
	_, err = io.Copy(conn, br)
	conn.Close()
	c.Close()
	wg.Wait()
	return err
}

// take is a connection without a request; nil if there is none.
func (l *living) take() (c *wasi.HostConn, reused bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.idle) > 0 {
		c := l.idle[len(l.idle)-1]
		l.idle = l.idle[:len(l.idle)-1]
		if !c.Ended() {
			return c, true
		}
		c.Close()
	}
	return nil, false
}

// put keeps a connection for another request.
func (l *living) put(c *wasi.HostConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.idle = append(l.idle, c)
}
