package node

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/request"
	"peercompute/pkg/supervisor"
	"peercompute/pkg/wire"
)

// dialTimeout bounds the wait for a workload to take a connection.
const dialTimeout = 10 * time.Second

// guestPort stands for the one port of a WASM guest, which has no number of its own.
const guestPort = 80

func (n *Node) onForward(ctx context.Context, c *request.Call) (request.Reply, error) {
	var in wire.Forward
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return request.Reply{}, err
	}
	if _, err := mesh.ParseWorkloadID(string(in.Workload)); err != nil {
		return request.Reply{}, err
	}
	ctx, leave, err := n.enter(ctx, c.From, in.Workload, 0)
	if err != nil {
		return request.Reply{}, err
	}
	conn, err := n.dialPort(ctx, in.Workload, in.Port)
	if err != nil {
		leave()
		return request.Reply{}, err
	}
	done := func() {
		conn.Close()
		leave()
	}
	return request.Reply{Body: wire.Empty{}, Cancel: done, Stream: func(_ context.Context, s *peernet.Stream) error {
		defer done()
		return splice(ctx, s, conn)
	}}, nil
}

// dialPort connects to a port of a workload that runs; 0 is its own.
func (n *Node) dialPort(ctx context.Context, id mesh.WorkloadID, port uint16) (net.Conn, error) {
	r, err := n.record(n.m.Key.ID, id)
	if err != nil {
		return nil, err
	}
	if h := n.hold(r.Workload); h.Level >= supervisor.Pause {
		return nil, mesh.Errorf(mesh.Unavailable, "the workload is paused: %s", h.Reason)
	}
	t, err := n.sup.Task(id)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	spec := r.Workload.Spec
	if port == 0 && spec.Runtime == mesh.Container && spec.Port == 0 {
		return nil, mesh.Errorf(mesh.Invalid, "workload %s was deployed without --port, so the port must be said", spec.Name).WithRule("workload.port").
			WithHint("peerctl port-forward %s LOCAL:REMOTE", spec.Name)
	}
	p, any := t.(driver.PortDialer)
	switch {
	case port == 0 || port == spec.Port:
		return t.Dial(ctx)
	case any:
		return p.DialPort(ctx, port)
	case port == guestPort:
		return t.Dial(ctx)
	}
	return nil, mesh.Errorf(mesh.Unsupported, "a WASM guest answers on one port alone, as %d", guestPort).WithRule("workload.port").
		WithHint("peerctl port-forward %s LOCAL:%d", spec.Name, guestPort)
}

// Forward opens one connection to a port of a workload, wherever that runs.
func (a *api) Forward(ctx context.Context, ref, peer string, port uint16) (control.Conn, error) {
	d, err := a.locate(ctx, ref, peer)
	if err != nil {
		return nil, err
	}
	id, self := d.View.Workload.ID, a.n.m.Key.ID
	if d.Peer != self {
		s, err := a.n.m.Client.Open(ctx, d.Peer, wire.VerbForward, wire.Forward{Workload: id, Port: port}, nil)
		if err != nil {
			return nil, a.n.elsewhere(d.Peer, err)
		}
		stop := context.AfterFunc(ctx, s.Reset)
		return &farConn{Stream: s, stop: stop, broken: func(err error) error {
			return ended(ctx, a.n.elsewhere(d.Peer, mesh.Errorf(mesh.Unavailable, "the connection was lost").Because(err)))
		}}, nil
	}
	ctx, leave, err := a.n.enter(ctx, self, id, 0)
	if err != nil {
		return nil, err
	}
	conn, err := a.n.dialPort(ctx, id, port)
	if err != nil {
		leave()
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	return &nearConn{Conn: conn, ctx: ctx, leave: func() { stop(); leave() }}, nil
}

// farConn is a connection to a workload on another peer.
type farConn struct {
	*peernet.Stream
	stop   func() bool
	broken func(error) error
}

func (c *farConn) Read(p []byte) (int, error) {
	n, err := c.Stream.Read(p)
	if err != nil && err != io.EOF {
		err = c.broken(err)
	}
	return n, err
}

// Close cuts it: what ends well has ended both ways before.
func (c *farConn) Close() error {
	c.stop()
	c.Reset()
	return nil
}

// nearConn is a connection to a workload of this machine.
type nearConn struct {
	net.Conn
	ctx   context.Context // of the session, which may be cut
	leave func()
}

func (c *nearConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil && err != io.EOF {
		err = ended(c.ctx, err)
	}
	return n, err
}

func (c *nearConn) CloseWrite() error {
	halfClose(c.Conn)
	return nil
}

func (c *nearConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// splice copies both ways between a peer's stream and a connection, until both
// directions have ended or ctx has. What breaks off is reset, so that a part is
// never taken for the whole.
func splice(ctx context.Context, s *peernet.Stream, conn net.Conn) error {
	cut := func() {
		s.Reset()
		conn.Close()
	}
	defer context.AfterFunc(ctx, cut)()
	var wg sync.WaitGroup
	wg.Go(func() {
		switch readErr, writeErr := transfer(conn, s); {
		case readErr != nil:
			conn.Close() // whoever asked gave up
		case writeErr == nil:
			halfClose(conn)
		}
		// A workload that takes no more may still be answering.
	})
	err := errors.Join(transfer(s, conn))
	if err == nil {
		err = s.CloseWrite()
	}
	if err != nil {
		cut()
	}
	wg.Wait()
	return ended(ctx, err)
}

// transfer copies from r to w until r ends, and says which of the two failed.
func transfer(w io.Writer, r io.Reader) (readErr, writeErr error) {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return nil, err
			}
		}
		if err == io.EOF {
			return nil, nil
		}
		if err != nil {
			return err, nil
		}
	}
}

// halfClose says that nothing more comes, where that can be said. An end that is
// gone need not hear it.
func halfClose(c net.Conn) {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
	}
}
