package node

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"sync"

	"peercompute/pkg/control"
	"peercompute/pkg/driver"
	"peercompute/pkg/frame"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/request"
	"peercompute/pkg/store"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// This file is what exec and copy share. Both need the right to exec: who may put files
// beside a program, and read all that it can read, may as well be inside.

// inside is something done inside a workload that runs, whose streams come from whoever
// asked. T is what is said of it at its end.
type inside[T any] struct {
	workload mesh.WorkloadID
	verb     wire.Verb
	body     any    // of the request, by which a peer knows what to do
	end      byte   // type of the last frame, with T
	name     string // as in "… was cut off"
	// Which streams it has; on others nothing is taken.
	input, output, errors bool
	// ready refuses, or says how it is done.
	ready func() (func(context.Context, ends) (T, error), error)
	note  func(tx *store.Tx, who mesh.PeerID) error // puts it on record
}

// ends are those of its streams here.
type ends struct {
	in       io.Reader
	out, err io.Writer
	sizes    chan driver.WindowSize
}

// serveInside does it for a peer.
func serveInside[T any](ctx context.Context, n *Node, who mesh.PeerID, it inside[T]) (request.Reply, error) {
	ctx, leave, err := n.enter(ctx, who, it.workload, trust.Exec)
	if err != nil {
		return request.Reply{}, err
	}
	do, err := it.ready()
	if err != nil {
		leave()
		return request.Reply{}, err
	}
	return request.Reply{
		Body: wire.Empty{}, Cancel: leave,
		Commit: func(tx *store.Tx) error { return it.note(tx, who) },
		Stream: func(_ context.Context, s *peernet.Stream) error {
			defer leave()
			return carryInside(ctx, s, it.end, do)
		},
	}, nil
}

// carryInside carries the streams until the end, or until who asked is gone.
func carryInside[T any](ctx context.Context, s *peernet.Stream, end byte, do func(context.Context, ends) (T, error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(ctx, s.Reset)()
	to := &locked{w: s}
	inbox := frame.NewInbox(func(credit []byte) { _ = frame.Write(to, wire.FrameCredit, credit) })
	defer inbox.Close()
	sizes := make(chan driver.WindowSize, 1)
	go func() { cancel(receiveInside(s, inbox, sizes)) }()
	did, err := do(ctx, ends{
		in: inbox, out: frame.Writer{W: to, Type: wire.FrameStdout}, err: frame.Writer{W: to, Type: wire.FrameStderr}, sizes: sizes,
	})
	typ, v := end, any(did)
	if err != nil {
		typ, v = wire.FrameError, wire.NewError(err)
	}
	b, merr := wire.Marshal(v)
	if merr != nil {
		return merr
	}
	return frame.Write(to, typ, b)
}

// receiveInside takes what comes up, and returns when whoever sends it is gone.
func receiveInside(r io.Reader, inbox *frame.Inbox, sizes chan driver.WindowSize) error {
	in := bufio.NewReader(r)
	for {
		typ, p, err := frame.Read(in)
		if err != nil {
			return mesh.Errorf(mesh.Canceled, "who asked is gone").Because(err)
		}
		switch typ {
		case wire.FrameStdin:
			if err := inbox.Put(p); err != nil {
				return mesh.Errorf(mesh.Invalid, "%s", err)
			}
		case wire.FrameResize:
			if len(p) == 4 {
				latest(sizes, driver.WindowSize{Columns: binary.BigEndian.Uint16(p), Rows: binary.BigEndian.Uint16(p[2:])})
			}
		}
	}
}

// locked writes frames, each of which is one write, for several at once.
type locked struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// latest puts a value into a channel of one, in place of what nobody has taken.
func latest[T any](c chan T, v T) {
	for {
		select {
		case c <- v:
			return
		default:
		}
		select {
		case <-c:
		default:
		}
	}
}

// doInside does it for the local person, wherever the workload is.
func doInside[T any](ctx context.Context, a *api, ref, peer string, of func(mesh.WorkloadID) inside[T], begin func() (control.Streams, error)) (none T, err error) {
	d, err := a.find(ctx, ref, peer)
	if err != nil {
		return none, err
	}
	it, self := of(d.View.Workload.ID), a.n.m.Key.ID
	if d.Peer != self {
		return askInside(ctx, a.n, d.Peer, it, begin)
	}
	ctx, leave, err := a.n.enter(ctx, self, it.workload, 0)
	if err != nil {
		return none, err
	}
	defer leave()
	do, err := it.ready()
	if err != nil {
		return none, err
	}
	if err := a.n.m.Store.Update(ctx, func(tx *store.Tx) error { return it.note(tx, self) }); err != nil {
		return none, err
	}
	io, err := begin()
	if err != nil {
		return none, err
	}
	defer context.AfterFunc(ctx, io.Cut)()
	sizes := make(chan driver.WindowSize, 1)
	go func() { // ends with the client
		for s := range io.Size {
			latest(sizes, driver.WindowSize(s))
		}
	}()
	return do(ctx, ends{in: io.Stdin, out: io.Stdout, err: io.Stderr, sizes: sizes})
}

// askInside has a peer do it.
func askInside[T any](ctx context.Context, n *Node, p mesh.PeerID, it inside[T], begin func() (control.Streams, error)) (none T, err error) {
	s, err := n.m.Client.Open(ctx, p, it.verb, it.body, nil)
	if err != nil {
		return none, n.elsewhere(p, err)
	}
	defer s.Reset()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, s.Reset)()
	io, err := begin()
	if err != nil {
		return none, err
	}
	up := &locked{w: s}
	window := frame.NewWindow()
	go func() { // ends with the stream or the input
		if it.input {
			_ = window.Copy(ctx, io.Stdin, func(p []byte) error { return frame.Write(up, wire.FrameStdin, p) })
		}
	}()
	go func() {
		for size := range io.Size {
			_ = frame.Write(up, wire.FrameResize, binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, size.Columns), size.Rows))
		}
	}()
	in := bufio.NewReader(s)
	for {
		typ, b, err := frame.Read(in)
		if err != nil {
			return none, n.elsewhere(p, mesh.Errorf(mesh.Unavailable, "%s was cut off", it.name).Because(err))
		}
		switch {
		case typ == wire.FrameStdout && it.output:
			_, err = io.Stdout.Write(b)
		case typ == wire.FrameStderr && it.errors:
			_, err = io.Stderr.Write(b)
		case typ == wire.FrameCredit:
			err = window.Took(b)
		case typ == it.end:
			var did T
			err := wire.DecodeBody(b, &did)
			return did, err
		case typ == wire.FrameError:
			return none, n.elsewhere(p, remoteError(b))
		}
		if err != nil {
			return none, err
		}
	}
}
