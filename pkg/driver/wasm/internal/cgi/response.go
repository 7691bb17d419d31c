package cgi

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"
)

// Bounds of the head of an answer.
const (
	MaxHead   = 64 << 10 // bytes, from the first to the empty line
	MaxFields = 256
)

// flushDelay is how long a part of the body may wait for more of it before it
// is sent, so that a program that writes in small pieces costs few packets and
// one that streams events is still live.
const flushDelay = 2 * time.Millisecond

// ErrMalformed is wrapped by every error about what the program wrote.
var ErrMalformed = errors.New("malformed CGI answer")

// Head is the parsed head of an answer.
type Head struct {
	Status int
	Header http.Header
}

// Response is an io.Writer for the program's standard output. It parses the head,
// passes it on at once and streams the body after it. The caller must call Finish
// when the program has ended.
type Response struct {
	w http.ResponseWriter

	mu      sync.Mutex // also taken by the flush timer
	head    []byte     // the head as far as it has come
	started bool       // the head was passed on
	err     error      // sticky
	timer   *time.Timer
	pending bool // the timer will flush
	closed  bool
}

// NewResponse returns a Response that answers through w.
func NewResponse(w http.ResponseWriter) *Response { return &Response{w: w} }

// Write takes the next part of the program's output.
func (r *Response) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return 0, r.err
	}
	if r.closed {
		return 0, errors.New("the request is over")
	}
	body := p
	if !r.started {
		var err error
		if body, err = r.takeHead(p); err != nil {
			r.err = err
			return 0, err
		}
		if !r.started {
			return len(p), nil
		}
	}
	if len(body) > 0 {
		if _, err := r.w.Write(body); err != nil && !errors.Is(err, http.ErrBodyNotAllowed) {
			r.err = err
			return 0, err
		}
	}
	r.flushSoon()
	return len(p), nil
}

// Started reports whether the head, and so the status, has been passed on.
func (r *Response) Started() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.started
}

// Finish ends the answer. It returns an error that wraps ErrMalformed if the
// program did not write a whole head, or what failed while passing it on.
// No write reaches the client after it.
func (r *Response) Finish() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.timer != nil {
		r.timer.Stop()
	}
	switch {
	case r.err != nil:
		return r.err
	case r.started:
		return nil
	case len(r.head) == 0:
		return fmt.Errorf("%w: the program wrote nothing", ErrMalformed)
	}
	return fmt.Errorf("%w: the head does not end with an empty line", ErrMalformed)
}

// takeHead adds p to the head; when that completes it, the head is passed on and
// the rest of p, the first of the body, is returned.
func (r *Response) takeHead(p []byte) (body []byte, err error) {
	before := len(r.head)
	room := MaxHead + 4 - before
	r.head = append(r.head, p[:min(len(p), room)]...)
	end := headEnd(r.head, before)
	if end < 0 {
		if len(r.head) > MaxHead {
			return nil, fmt.Errorf("%w: the head is over %d bytes", ErrMalformed, MaxHead)
		}
		return nil, nil
	}
	h, err := ParseHead(r.head[:end])
	if err != nil {
		return nil, err
	}
	r.head = nil
	r.started = true
	to := r.w.Header()
	for k, v := range h.Header {
		to[k] = v
	}
	if h.Header.Get("Content-Type") == "" {
		to["Content-Type"] = nil // no guessing: the program said nothing
	}
	r.w.WriteHeader(h.Status)
	return p[end-before:], nil
}

// headEnd is the index after the empty line that ends the head, or -1. Bytes
// before from were looked at before, but an end may straddle.
func headEnd(b []byte, from int) int {
	for i := max(0, from-3); i < len(b); i++ {
		if b[i] != '\n' {
			continue
		}
		rest := b[i+1:]
		if len(rest) > 0 && rest[0] == '\n' {
			return i + 2
		}
		if len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n' {
			return i + 3
		}
	}
	return -1
}

// flushSoon sends what was written within flushDelay. r.mu is held.
func (r *Response) flushSoon() {
	if r.pending {
		return
	}
	r.pending = true
	if r.timer == nil {
		r.timer = time.AfterFunc(flushDelay, r.flush)
		return
	}
	r.timer.Reset(flushDelay)
}

func (r *Response) flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending = false
	if r.closed || r.err != nil {
		return
	}
	// An error will show at the next write; a client that is gone cancels the request.
	_ = http.NewResponseController(r.w).Flush()
}

// ParseHead parses the head of an answer, with the empty line at its end: header
// fields, of which Status and Location have a meaning of their own (RFC 3875
// §6.3). Fields about the connection are dropped: the connection is not the
// program's.
func ParseHead(b []byte) (Head, error) {
	h := Head{Header: http.Header{}}
	fields := 0
	for len(b) > 0 {
		line, rest, _ := bytes.Cut(b, []byte("\n"))
		b = rest
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(line) == 0 {
			break
		}
		if fields++; fields > MaxFields {
			return Head{}, fmt.Errorf("%w: over %d header fields", ErrMalformed, MaxFields)
		}
		name, value, ok := strings.Cut(string(line), ":")
		value = strings.Trim(value, " \t")
		if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return Head{}, fmt.Errorf("%w: %.80q is not a header field", ErrMalformed, line)
		}
		switch key := http.CanonicalHeaderKey(name); key {
		case "Status":
			status, err := parseStatus(value)
			if err != nil {
				return Head{}, err
			}
			h.Status = status
		case "Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		default:
			h.Header[key] = append(h.Header[key], value)
		}
	}
	return h.settle()
}

// settle fills in the status that the head implies and refuses a head that says too little.
func (h Head) settle() (Head, error) {
	if n := h.Header["Content-Length"]; len(n) > 1 {
		return Head{}, fmt.Errorf("%w: more than one Content-Length", ErrMalformed)
	} else if len(n) == 1 {
		if _, err := strconv.ParseUint(n[0], 10, 63); err != nil {
			return Head{}, fmt.Errorf("%w: Content-Length %.40q", ErrMalformed, n[0])
		}
	}
	switch {
	case h.Status != 0:
	case h.Header.Get("Location") != "":
		h.Status = http.StatusFound
	case h.Header.Get("Content-Type") == "":
		return Head{}, fmt.Errorf("%w: neither Content-Type, Location nor Status", ErrMalformed)
	default:
		h.Status = http.StatusOK
	}
	return h, nil
}

// parseStatus reads "404 Not Found". Interim answers (1xx) are not the program's to give.
func parseStatus(v string) (int, error) {
	code, _, _ := strings.Cut(v, " ")
	n, err := strconv.Atoi(code)
	if err != nil || len(code) != 3 || n < 200 || n > 599 {
		return 0, fmt.Errorf("%w: status %.40q", ErrMalformed, v)
	}
	return n, nil
}
