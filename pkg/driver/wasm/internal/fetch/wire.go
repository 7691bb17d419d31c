package fetch

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"sync"

	"peercompute/pkg/mesh"
)

// A message on the connection between a worker and peerd is big-endian:
//
//	0   4  number; an answer has that of its request
//	4   4  length of the head, at most maxHead
//	8   4  length of the body, at most MaxAnswer
//	12     the head, JSON, and the body
const (
	headerLen = 12
	maxHead   = 256 << 10 // 64 KiB of fields, written as JSON
)

var errMessage = errors.New("malformed message")

type message struct {
	number uint32
	head   []byte
	body   []byte
}

func (m message) write(w io.Writer) error {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, headerLen+len(m.head)+len(m.body)), m.number)
	b = binary.BigEndian.AppendUint32(b, uint32(len(m.head)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(m.body)))
	_, err := w.Write(append(append(b, m.head...), m.body...))
	return err
}

func read(r io.Reader, maxBody uint32) (m message, err error) {
	var h [headerLen]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return m, err
	}
	m.number = binary.BigEndian.Uint32(h[:])
	head, body := binary.BigEndian.Uint32(h[4:]), binary.BigEndian.Uint32(h[8:])
	if head > maxHead || body > maxBody {
		return m, errMessage
	}
	b := make([]byte, head+body)
	if _, err := io.ReadFull(r, b); err != nil {
		return m, err
	}
	m.head, m.body = b[:head:head], b[head:]
	return m, nil
}

// outcome is the head of an answer: how it went, or why it did not.
type outcome struct {
	Answer
	Kind mesh.Kind `json:"kind,omitempty"`
	Fail string    `json:"fail,omitempty"`
}

// Serve makes the requests that come over conn until it ends, a few at a time. It
// closes conn.
func Serve(ctx context.Context, conn net.Conn, c *Client) {
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	turns := make(chan struct{}, maxAtOnce)
	var mu sync.Mutex // one answer at a time is written
	for in := bufio.NewReader(conn); ; {
		m, err := read(in, MaxBody)
		if err != nil {
			return
		}
		var r Request
		if json.Unmarshal(m.head, &r) != nil {
			return
		}
		r.Body = m.body
		turns <- struct{}{} // each ends in time, or with the connection
		work.Go(func() {
			defer func() { <-turns }()
			var o outcome
			a, err := c.Do(ctx, r)
			if err != nil {
				e := mesh.AsError(err)
				o.Kind, o.Fail = e.Kind, e.Msg
			} else {
				o.Answer = a
			}
			head, err := json.Marshal(o)
			if err != nil || len(head) > maxHead {
				o = outcome{Kind: mesh.TooLarge, Fail: "the answer's header is too large"}
				head, _ = json.Marshal(o) // a number and a string
				a.Body = nil
			}
			mu.Lock()
			defer mu.Unlock()
			if (message{m.number, head, a.Body}).write(conn) != nil {
				conn.Close() // half a message may be on its way
			}
		})
	}
}

// Remote asks over a connection to Serve. Its methods may be called from many
// goroutines.
type Remote struct {
	conn    net.Conn
	writing sync.Mutex // one request at a time

	mu      sync.Mutex
	next    uint32
	pending map[uint32]chan message // nil once the connection has ended
}

// NewRemote takes conn over.
func NewRemote(conn net.Conn) *Remote {
	r := &Remote{conn: conn, pending: map[uint32]chan message{}}
	go r.listen()
	return r
}

// Close ends it, and whoever waits. The nil Remote has nothing to end.
func (r *Remote) Close() {
	if r != nil {
		r.conn.Close()
	}
}

func (r *Remote) listen() {
	in := bufio.NewReader(r.conn)
	for {
		m, err := read(in, MaxAnswer)
		r.mu.Lock()
		if err != nil {
			for _, c := range r.pending {
				close(c)
			}
			r.pending = nil
			r.mu.Unlock()
			r.conn.Close()
			return
		}
		c := r.pending[m.number]
		delete(r.pending, m.number)
		r.mu.Unlock()
		if c != nil {
			c <- m
		}
	}
}

// Do has a request made. It returns soon after ctx has ended.
func (r *Remote) Do(ctx context.Context, q Request) (Answer, error) {
	gone := mesh.Errorf(mesh.Unavailable, "the network is gone")
	head, err := json.Marshal(q)
	if err != nil || len(head) > maxHead || len(q.Body) > MaxBody {
		return Answer{}, mesh.Errorf(mesh.TooLarge, "the request is too large")
	}
	c := make(chan message, 1)
	r.mu.Lock()
	if r.pending == nil {
		r.mu.Unlock()
		return Answer{}, gone
	}
	r.next++
	n := r.next
	r.pending[n] = c
	r.mu.Unlock()
	r.writing.Lock()
	err = message{n, head, q.Body}.write(r.conn) // peerd reads it, or the connection ends
	r.writing.Unlock()
	if err != nil {
		r.conn.Close()
		return Answer{}, gone
	}
	select {
	case m, ok := <-c:
		if !ok {
			return Answer{}, gone
		}
		var o outcome
		if json.Unmarshal(m.head, &o) != nil {
			return Answer{}, gone
		}
		if o.Fail != "" {
			return Answer{}, mesh.Errorf(o.Kind, "%s", o.Fail)
		}
		o.Body = m.body
		return o.Answer, nil
	case <-ctx.Done():
		r.mu.Lock()
		delete(r.pending, n)
		r.mu.Unlock()
		return Answer{}, context.Cause(ctx)
	}
}
