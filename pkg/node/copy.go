package node

import (
	"bufio"
	"context"
	"fmt"
	"io"

	"peercompute/pkg/archive"
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

// This file copies files into and out of workloads. It needs the right to exec: who may
// put files beside a program, and read all that it can read, may as well be inside.

// copier is the run of a workload whose files can be copied.
func (n *Node) copier(id mesh.WorkloadID) (driver.Copier, error) {
	t, err := n.sup.Task(id)
	if err != nil {
		return nil, err
	}
	c, ok := t.(driver.Copier)
	if !ok {
		return nil, mesh.Errorf(mesh.Unsupported, "no files can be copied into or out of a WASM guest: each of its instances has files of its own").WithRule("workload.copy").
			WithHint("deploy it with its files: see docs/capabilities.md")
	}
	return c, nil
}

// noteCopy records that who copies, and where, but not what.
func (n *Node) noteCopy(tx *store.Tx, who mesh.PeerID, id mesh.WorkloadID, action, path string) error {
	r, err := n.owned(tx, who, id)
	if err != nil {
		return err
	}
	e := n.entry(n.actor(who), action, r.Workload, fmt.Sprintf("%.200q", path))
	if who != n.m.Key.ID {
		e.Rule = "grant.exec"
	}
	return audit.Append(tx, e)
}

// The names of copies on record.
const (
	copyOut = "copy-out"
	copyIn  = "copy-in"
)

func (n *Node) onCopyOut(ctx context.Context, c *request.Call) (request.Reply, error) {
	var in wire.CopyOut
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return request.Reply{}, err
	}
	return n.onCopy(ctx, c.From, in.Workload, copyOut, in.Path, func(ctx context.Context, x driver.Copier, _ io.Reader, w io.Writer) (archive.Report, error) {
		return x.CopyOut(ctx, in.Path, w)
	})
}

func (n *Node) onCopyIn(ctx context.Context, c *request.Call) (request.Reply, error) {
	var in wire.CopyIn
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return request.Reply{}, err
	}
	return n.onCopy(ctx, c.From, in.Workload, copyIn, in.Path, func(ctx context.Context, x driver.Copier, r io.Reader, _ io.Writer) (archive.Report, error) {
		return x.CopyIn(ctx, driver.CopyTo{Path: in.Path, Tree: in.Tree}, r)
	})
}

type copying func(context.Context, driver.Copier, io.Reader, io.Writer) (archive.Report, error)

func (n *Node) onCopy(ctx context.Context, who mesh.PeerID, id mesh.WorkloadID, action, path string, do copying) (request.Reply, error) {
	if err := mesh.ValidPath(path); err != nil {
		return request.Reply{}, err
	}
	ctx, leave, err := n.enter(ctx, who, id, trust.Exec)
	if err != nil {
		return request.Reply{}, err
	}
	x, err := n.copier(id)
	if err != nil {
		leave()
		return request.Reply{}, err
	}
	return request.Reply{
		Body: wire.Empty{}, Cancel: leave,
		Commit: func(tx *store.Tx) error { return n.noteCopy(tx, who, id, action, path) },
		Stream: func(_ context.Context, s *peernet.Stream) error {
			defer leave()
			return serveCopy(ctx, s, func(ctx context.Context, r io.Reader, w io.Writer) (archive.Report, error) { return do(ctx, x, r, w) })
		},
	}, nil
}

// serveCopy carries an archive until its end, or until who asked is gone.
func serveCopy(ctx context.Context, s *peernet.Stream, do func(context.Context, io.Reader, io.Writer) (archive.Report, error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(ctx, s.Reset)()
	out := &locked{w: s}
	inbox := frame.NewInbox(func(credit []byte) { _ = out.send(wire.FrameCredit, credit) })
	defer inbox.Close()
	go func() { cancel(receiveExec(s, inbox, make(chan driver.WindowSize, 1))) }()
	did, err := do(ctx, inbox, out.stream(wire.FrameStdout))
	typ, v := wire.FrameCopied, any(wire.Copied(did))
	if err != nil {
		typ, v = wire.FrameError, wire.NewError(err)
	}
	b, merr := wire.Marshal(v)
	if merr != nil {
		return merr
	}
	return out.send(typ, b)
}

// Copy copies files into or out of a workload, wherever that is.
func (a *api) Copy(ctx context.Context, ref, peer string, c control.Copy, begin func() (control.CopyStreams, error)) (archive.Report, error) {
	if err := mesh.ValidPath(c.Path); err != nil {
		return archive.Report{}, err
	}
	d, err := a.find(ctx, ref, peer)
	if err != nil {
		return archive.Report{}, err
	}
	id, self := d.View.Workload.ID, a.n.m.Key.ID
	if d.Peer != self {
		return a.copyThere(ctx, d.Peer, id, c, begin)
	}
	ctx, leave, err := a.n.enter(ctx, self, id, 0)
	if err != nil {
		return archive.Report{}, err
	}
	defer leave()
	x, err := a.n.copier(id)
	if err != nil {
		return archive.Report{}, err
	}
	action := copyOut
	if c.In {
		action = copyIn
	}
	if err := a.n.m.Store.Update(ctx, func(tx *store.Tx) error { return a.n.noteCopy(tx, self, id, action, c.Path) }); err != nil {
		return archive.Report{}, err
	}
	io, err := begin()
	if err != nil {
		return archive.Report{}, err
	}
	defer context.AfterFunc(ctx, io.Cut)()
	if c.In {
		return x.CopyIn(ctx, driver.CopyTo{Path: c.Path, Tree: c.Tree}, io.In)
	}
	return x.CopyOut(ctx, c.Path, io.Out)
}

func (a *api) copyThere(ctx context.Context, p mesh.PeerID, id mesh.WorkloadID, c control.Copy, begin func() (control.CopyStreams, error)) (archive.Report, error) {
	verb, body := wire.VerbCopyOut, any(wire.CopyOut{Workload: id, Path: c.Path})
	if c.In {
		verb, body = wire.VerbCopyIn, wire.CopyIn{Workload: id, Path: c.Path, Tree: c.Tree}
	}
	s, err := a.n.m.Client.Open(ctx, p, verb, body, nil)
	if err != nil {
		return archive.Report{}, a.n.elsewhere(p, err)
	}
	defer s.Reset()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, s.Reset)()
	io, err := begin()
	if err != nil {
		return archive.Report{}, err
	}
	window := frame.NewWindow()
	if c.In {
		up := &locked{w: s}
		go func() { // ends with the stream or the input
			_ = window.Copy(ctx, io.In, func(p []byte) error { return up.send(wire.FrameStdin, p) })
		}()
	}
	in := bufio.NewReader(s)
	for {
		typ, b, err := frame.Read(in)
		if err != nil {
			return archive.Report{}, a.n.elsewhere(p, mesh.Errorf(mesh.Unavailable, "the copy was cut off").Because(err))
		}
		switch typ {
		case wire.FrameStdout:
			_, err = io.Out.Write(b)
		case wire.FrameCredit:
			err = window.Took(b)
		case wire.FrameCopied:
			var did wire.Copied
			err := wire.DecodeBody(b, &did)
			return archive.Report(did), err
		case wire.FrameError:
			return archive.Report{}, a.n.elsewhere(p, remoteError(b))
		}
		if err != nil {
			return archive.Report{}, err
		}
	}
}
