package gateway

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
)

// appendHead writes the request's line and headers as the workload gets them.
func (x *exchange) appendHead(b []byte) []byte {
	r := x.r
	b = append(b, r.Method...)
	b = append(b, ' ')
	if r.RequestURI == "*" {
		b = append(b, '*')
	} else {
		b = append(b, target(r)...)
	}
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, r.Host...)
	b = append(b, "\r\n"...)
	b = appendRequestHeaders(b, r.Header)
	b = appendForwarded(b, x.client, r.Host, r.TLS != nil)
	switch {
	case x.upgrade != "":
		b = append(b, "Connection: Upgrade\r\nUpgrade: "...)
		b = append(b, x.upgrade...)
		b = append(b, "\r\n"...)
	case r.ContentLength > 0:
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, r.ContentLength, 10)
		b = append(b, "\r\n"...)
	case hasBody(r):
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		for k := range r.Trailer {
			if httpguts.ValidTrailerHeader(k) {
				b = append(b, "Trailer: "...)
				b = append(b, k...)
				b = append(b, "\r\n"...)
			}
		}
	case r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodOptions:
		b = append(b, "Content-Length: 0\r\n"...)
	}
	return append(b, "\r\n"...)
}

// target is the request's path and query as the client wrote them, where they
// are in origin form and plain, and as net/url writes them where not.
func target(r *http.Request) string {
	raw := r.RequestURI
	if raw == "" || raw[0] != '/' {
		return r.URL.RequestURI()
	}
	for i := range len(raw) {
		if raw[i] <= ' ' || raw[i] == 0x7f {
			return r.URL.RequestURI()
		}
	}
	return raw
}

func hasBody(r *http.Request) bool {
	return r.ContentLength != 0 && r.Body != nil && r.Body != http.NoBody
}

// minBody is what a client must send of an unanswered request's body within
// ProxyConfig.BodyWindow, in bytes. A trickle would hold a stream for ever.
const minBody = 1 << 10

var (
	errSlowBody = errors.New("the request's body came too slowly")
	errBadBody  = errors.New("the request's body is malformed or broke off")
)

// bodySender copies a request's body to the stream while the response may come
// already: neither side ever waits for the other to finish.
type bodySender struct {
	x    *exchange
	rc   *http.ResponseController
	done chan struct{} // closed when run has returned

	wait     chan struct{} // closed when a client that asked may send; nil if it did not ask
	waitOnce sync.Once
	stop     chan struct{} // closed when the exchange is over

	readAll  atomic.Bool // the client's body has been read to its end
	answered atomic.Bool // the response's head has come
	sent     bool        // all of it was written; read after done

	failed atomic.Pointer[error] // what went wrong at the client's side

	window   time.Time // when the present window began
	got      int       // bytes in this window
	returned time.Time // when the last Read returned
	deadline time.Time // the read deadline that is set

	mu   sync.Mutex
	over bool // no deadline of read's takes the place of finish's
}

// setDeadline sets the read deadline, unless the last one was set already.
func (s *bodySender) setDeadline(at time.Time, last bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return false
	}
	s.over = last
	_ = s.rc.SetReadDeadline(at)
	return true
}

// startBody sends the body in a goroutine of its own; nil if there is none.
func (x *exchange) startBody() *bodySender {
	if !hasBody(x.r) {
		return nil
	}
	s := &bodySender{x: x, rc: http.NewResponseController(x.w), done: make(chan struct{}), stop: make(chan struct{})}
	// Without this, net/http reads the rest of the body before it writes a
	// response, which deadlocks with a client that reads before it writes on.
	_ = s.rc.EnableFullDuplex()
	if httpguts.HeaderValuesContainsToken(x.r.Header["Expect"], "100-continue") {
		s.wait = make(chan struct{})
	}
	go func() {
		defer close(s.done)
		s.run()
	}()
	return s
}

// proceed lets a client that asked for 100-continue send its body.
func (s *bodySender) proceed() {
	if s != nil && s.wait != nil {
		s.waitOnce.Do(func() { close(s.wait) })
	}
}

// continueTimeout is how long a workload that does not know 100-continue keeps
// a client waiting.
const continueTimeout = time.Second

func (s *bodySender) run() {
	if s.wait != nil {
		t := time.NewTimer(continueTimeout)
		defer t.Stop()
		select {
		case <-s.wait:
		case <-t.C:
		case <-s.stop:
			return
		}
	}
	x := s.x
	stream, chunked := x.u.stream, x.r.ContentLength < 0
	buf := x.p.buffers.Get().(*[copyBuffer]byte)
	defer x.p.buffers.Put(buf)
	// Room for a chunk's size in front and its line end behind.
	const front, back = 10, 2
	left := x.r.ContentLength
	for {
		n, err := s.read(buf[front : copyBuffer-back])
		if left -= int64(n); err == io.EOF || left == 0 {
			s.readAll.Store(true)
		}
		if n > 0 {
			out := buf[front : front+n]
			if chunked {
				out = frame(buf[:], front, n)
			}
			x.u.deadline.Store(x.p.after(x.p.cfg.IdleTimeout))
			if _, err := stream.Write(out); err != nil {
				return // what the workload says about it, if anything, is in the response
			}
		}
		if err == io.EOF || left == 0 {
			break
		}
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = errSlowBody
			}
			if err != errSlowBody {
				err = fmt.Errorf("%w: %w", errBadBody, err)
			}
			s.failed.Store(&err)
			stream.Reset() // the workload must not take a part for the whole
			return
		}
	}
	if chunked {
		if _, err := stream.Write(appendTrailers([]byte("0\r\n"), x.r.Trailer)); err != nil {
			return
		}
	}
	s.sent = true
	x.u.deadline.Store(x.p.after(x.p.cfg.ResponseTimeout))
}

// frame makes a chunk of buf[front:front+n], in place.
func frame(buf []byte, front, n int) []byte {
	var hex [16]byte
	size := append(strconv.AppendInt(hex[:0], int64(n), 16), "\r\n"...)
	start := front - len(size)
	copy(buf[start:], size)
	copy(buf[front+n:], "\r\n")
	return buf[start : front+n+2]
}

func appendTrailers(b []byte, trailer http.Header) []byte {
	for k, vv := range trailer {
		if !httpguts.ValidTrailerHeader(k) || ours(k) || hopByHop(k) {
			continue
		}
		for _, v := range vv {
			if !httpguts.ValidHeaderFieldValue(v) {
				continue
			}
			b = append(b, k...)
			b = append(b, ": "...)
			b = append(b, v...)
			b = append(b, "\r\n"...)
		}
	}
	return append(b, "\r\n"...)
}

// read reads from the client within its deadlines: at least minBody bytes in
// each window of waiting until the response has begun, and after that no longer
// than IdleTimeout without a byte, so that two-way streams may be slow.
func (s *bodySender) read(b []byte) (int, error) {
	now := time.Now()
	if !s.returned.IsZero() {
		s.window = s.window.Add(now.Sub(s.returned)) // waiting for the workload is not the client's fault
	} else {
		s.window = now
	}
	length := s.x.p.cfg.BodyWindow
	if s.answered.Load() {
		s.window, s.got, length = now, 0, s.x.p.cfg.IdleTimeout
	} else if now.Sub(s.window) >= length {
		if s.got < minBody {
			return 0, errSlowBody
		}
		s.window, s.got = now, 0
	}
	if end := s.window.Add(length); end.Sub(s.deadline).Abs() > length/10 {
		s.deadline = end
		if !s.setDeadline(end.Add(length/10), false) {
			return 0, os.ErrDeadlineExceeded
		}
	}
	n, err := s.x.r.Body.Read(b)
	s.returned = time.Now()
	s.got += n
	return n, err
}

// unread reports whether the client still has body to send.
func (s *bodySender) unread() bool { return s != nil && !s.readAll.Load() }

// respond notes that the response has begun.
func (s *bodySender) respond() {
	if s != nil {
		s.answered.Store(true)
	}
}

// clientError is what the client did wrong, if that is why the exchange failed.
func (s *bodySender) clientError() error {
	if s == nil {
		return nil
	}
	if err := s.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// drainTimeout is how long net/http may read what an early response left of a
// body, so that the client gets to see the response before a reset.
const drainTimeout = 500 * time.Millisecond

// finish ends the sending, waits for it, and reports whether all was sent. An
// unfinished body after the response is whole is no error, but the stream is of
// no more use.
func (s *bodySender) finish(whole bool) bool {
	if s == nil {
		return true
	}
	close(s.stop)
	select {
	case <-s.done:
		return s.sent
	default:
	}
	if whole && s.readAll.Load() {
		<-s.done // its last write is under way, into a window that has room or to a dead stream
		return s.sent
	}
	s.x.u.stream.Reset()
	s.setDeadline(time.Unix(1, 0), true)
	<-s.done
	_ = s.rc.SetReadDeadline(time.Now().Add(drainTimeout))
	return false
}
