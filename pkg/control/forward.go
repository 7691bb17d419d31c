package control

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"peercompute/pkg/frame"
	"peercompute/pkg/mesh"
)

func portOf(r *http.Request) (uint16, error) {
	v := r.URL.Query().Get("port")
	n, err := strconv.ParseUint(v, 10, 16)
	if v != "" && err != nil {
		return 0, mesh.Errorf(mesh.Invalid, "port=%q is not a port", v)
	}
	return uint16(n), nil
}

// maxForwarded bounds the connections that one Forwarder carries at once.
const maxForwarded = 64

// Forwarder carries the connections to a port of this machine's loopback to a port
// of a workload.
type Forwarder struct {
	l      net.Listener
	client *Client
	path   string
}

// ListenForward listens on 127.0.0.1; local 0 is a free port that is chosen. remote 0
// is the workload's own port. Nothing is taken before Run.
func (c *Client) ListenForward(local uint16, id mesh.WorkloadID, peer string, remote uint16) (*Forwarder, error) {
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(local))))
	if err != nil {
		return nil, mesh.Errorf(mesh.Conflict, "cannot listen on port %d of this machine", local).
			WithHint("choose another LOCAL port, or 0 for any that is free").Because(err)
	}
	path := fmt.Sprintf("%s&port=%d", workloadPath(string(id), "/forward", peer), remote)
	return &Forwarder{l: l, client: c, path: path}, nil
}

// Addr is where it listens, "127.0.0.1:PORT".
func (f *Forwarder) Addr() string { return f.l.Addr().String() }

// Close stops listening; for a Forwarder that was not Run.
func (f *Forwarder) Close() error { return f.l.Close() }

// Run carries connections until ctx ends, each on a stream of its own. failed hears
// why one could not be carried, or was cut, one at a time and before the local program
// sees its end.
func (f *Forwarder) Run(ctx context.Context, failed func(error)) error {
	defer f.l.Close()
	stop := context.AfterFunc(ctx, func() { f.l.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	var mu sync.Mutex // of failed
	slots := make(chan struct{}, maxForwarded)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		conn, err := f.l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
		wg.Go(func() {
			defer func() { <-slots }()
			defer conn.Close()
			if err := f.carry(ctx, conn); err != nil && ctx.Err() == nil {
				mu.Lock()
				failed(err)
				mu.Unlock()
			}
		})
	}
}

// carry joins one local connection to a stream, and leaves closing it to its caller.
// One that was cut will be reset.
func (f *Forwarder) carry(ctx context.Context, near net.Conn) error {
	reset := func() {
		if t, ok := near.(*net.TCPConn); ok {
			_ = t.SetLinger(0)
		}
	}
	far, r, err := f.client.session(ctx, f.path, nil)
	if err != nil {
		reset()
		return err
	}
	defer far.Close()
	defer context.AfterFunc(ctx, func() {
		near.Close()
		far.Close()
	})()
	var wg sync.WaitGroup
	wg.Go(func() {
		if frame.Copy(far, FrameStdin, near) != nil {
			far.Close() // the local end was reset, or the stream is over
		}
	})
	err = receive(near, r)
	if err != nil {
		reset()
		_ = near.SetReadDeadline(time.Now()) // nothing more goes up
	}
	// What still goes up ends when the local program hangs up.
	wg.Wait()
	return err
}

// receive copies what comes down into near until its end, and half-closes near then.
func receive(near net.Conn, r *bufio.Reader) error {
	for {
		typ, p, err := frame.Read(r)
		switch {
		case err == io.EOF || err != nil:
			return mesh.Errorf(mesh.Unavailable, "a connection was cut off").Because(errCut)
		case typ == FrameError:
			return errorFrame(p)
		case typ != FrameStdout:
		case len(p) > 0:
			if _, err := near.Write(p); err != nil {
				return nil // the local program wants no more
			}
		default:
			if h, ok := near.(*net.TCPConn); ok {
				_ = h.CloseWrite()
			}
			return nil
		}
	}
}
