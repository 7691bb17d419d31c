package node

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"path"
	"sync"

	"peercompute/pkg/audit"
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

// execer is the run of a workload in which a program can be run.
func (n *Node) execer(id mesh.WorkloadID) (driver.Execer, error) {
	t, err := n.sup.Task(id)
	if err != nil {
		return nil, err
	}
	x, ok := t.(driver.Execer)
	if !ok {
		return nil, mesh.Errorf(mesh.Unsupported, "no program can be run inside a WASM guest, which has no processes").WithRule("workload.exec")
	}
	return x, nil
}

// noteExec records that who ran a program: its name and how many arguments it got,
// which may be secret.
func (n *Node) noteExec(tx *store.Tx, who mesh.PeerID, id mesh.WorkloadID, argv []string) error {
	r, err := n.owned(tx, who, id)
	if err != nil {
		return err
	}
	e := n.entry(n.actor(who), "exec", r.Workload, fmt.Sprintf("%.80q with %d arguments", path.Base(argv[0]), len(argv)-1))
	if who != n.m.Key.ID {
		e.Rule = "grant.exec"
	}
	return audit.Append(tx, e)
}

func (n *Node) onExec(ctx context.Context, c *request.Call) (request.Reply, error) {
	var in wire.Exec
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return request.Reply{}, err
	}
	if err := mesh.ValidArgv(in.Argv); err != nil {
		return request.Reply{}, err
	}
	ctx, leave, err := n.enter(ctx, c.From, in.Workload, trust.Exec)
	if err != nil {
		return request.Reply{}, err
	}
	x, err := n.execer(in.Workload)
	if err != nil {
		leave()
		return request.Reply{}, err
	}
	return request.Reply{
		Body: wire.Empty{}, Cancel: leave,
		Commit: func(tx *store.Tx) error { return n.noteExec(tx, c.From, in.Workload, in.Argv) },
		Stream: func(_ context.Context, s *peernet.Stream) error {
			defer leave()
			return serveExec(ctx, s, x, in)
		},
	}, nil
}

// locked writes one frame at a time.
type locked struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *locked) send(typ byte, p []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return frame.Write(l.w, typ, p)
}

// stream is a writer of frames of one type.
func (l *locked) stream(typ byte) io.Writer { return frameSender{l, typ} }

type frameSender struct {
	to  *locked
	typ byte
}

func (f frameSender) Write(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		part := p[n:min(len(p), n+frame.Max)]
		if err := f.to.send(f.typ, part); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

// serveExec carries a program's streams until its end, or until who asked is gone.
func serveExec(ctx context.Context, s *peernet.Stream, x driver.Execer, in wire.Exec) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(ctx, s.Reset)()
	out := &locked{w: s}
	inbox := frame.NewInbox(func(credit []byte) { _ = out.send(wire.FrameCredit, credit) })
	defer inbox.Close()
	sizes := make(chan driver.WindowSize, 1)
	go func() { cancel(receiveExec(s, inbox, sizes)) }()
	e := driver.Exec{Argv: in.Argv, TTY: in.TTY, Stdout: out.stream(wire.FrameStdout), Stderr: out.stream(wire.FrameStderr), Size: sizes}
	if in.Stdin {
		e.Stdin = inbox
	}
	status, err := x.Exec(ctx, e)
	typ, v := wire.FrameExit, any(mesh.Exit{Code: status})
	if err != nil {
		typ, v = wire.FrameError, wire.NewError(err)
	}
	b, merr := wire.Marshal(v)
	if merr != nil {
		return merr
	}
	return out.send(typ, b)
}

// receiveExec takes what comes up, and returns when whoever sends it is gone.
func receiveExec(r io.Reader, inbox *frame.Inbox, sizes chan driver.WindowSize) error {
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

// Exec runs a program inside a workload, wherever that is.
func (a *api) Exec(ctx context.Context, ref, peer string, e control.Exec, begin func() (control.ExecStreams, error)) (int, error) {
	if err := mesh.ValidArgv(e.Argv); err != nil {
		return 0, err
	}
	d, err := a.find(ctx, ref, peer)
	if err != nil {
		return 0, err
	}
	id, self := d.View.Workload.ID, a.n.m.Key.ID
	if d.Peer != self {
		return a.execThere(ctx, d.Peer, id, e, begin)
	}
	ctx, leave, err := a.n.enter(ctx, self, id, 0)
	if err != nil {
		return 0, err
	}
	defer leave()
	x, err := a.n.execer(id)
	if err != nil {
		return 0, err
	}
	if err := a.n.m.Store.Update(ctx, func(tx *store.Tx) error { return a.n.noteExec(tx, self, id, e.Argv) }); err != nil {
		return 0, err
	}
	io, err := begin()
	if err != nil {
		return 0, err
	}
	defer context.AfterFunc(ctx, io.Cut)()
	run := driver.Exec{Argv: e.Argv, TTY: e.TTY, Stdout: io.Stdout, Stderr: io.Stderr}
	if e.Stdin {
		run.Stdin = io.Stdin
	}
	if io.Size != nil {
		sizes := make(chan driver.WindowSize, 1)
		run.Size = sizes
		go func() {
			for s := range io.Size {
				latest(sizes, driver.WindowSize(s))
			}
		}()
	}
	return x.Exec(ctx, run)
}

func (a *api) execThere(ctx context.Context, p mesh.PeerID, id mesh.WorkloadID, e control.Exec, begin func() (control.ExecStreams, error)) (int, error) {
	s, err := a.n.m.Client.Open(ctx, p, wire.VerbExec, wire.Exec{Workload: id, Argv: e.Argv, TTY: e.TTY, Stdin: e.Stdin}, nil)
	if err != nil {
		return 0, a.n.elsewhere(p, err)
	}
	defer s.Reset()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, s.Reset)()
	io, err := begin()
	if err != nil {
		return 0, err
	}
	up := &locked{w: s}
	window := frame.NewWindow()
	go func() { // ends with the stream or the input
		if e.Stdin {
			_ = window.Copy(ctx, io.Stdin, func(p []byte) error { return up.send(wire.FrameStdin, p) })
		}
	}()
	go func() {
		for size := range io.Size {
			_ = up.send(wire.FrameResize, binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, size.Columns), size.Rows))
		}
	}()
	in := bufio.NewReader(s)
	for {
		typ, b, err := frame.Read(in)
		if err != nil {
			return 0, a.n.elsewhere(p, mesh.Errorf(mesh.Unavailable, "the program was cut off").Because(err))
		}
		switch typ {
		case wire.FrameStdout:
			_, err = io.Stdout.Write(b)
		case wire.FrameStderr:
			_, err = io.Stderr.Write(b)
		case wire.FrameCredit:
			err = window.Took(b)
		case wire.FrameExit:
			var x mesh.Exit
			err := wire.DecodeBody(b, &x)
			return x.Code, err
		case wire.FrameError:
			return 0, a.n.elsewhere(p, remoteError(b))
		}
		if err != nil {
			return 0, err
		}
	}
}
