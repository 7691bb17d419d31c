package node

import (
	"context"
	"errors"
	"io"
	"time"

	"peercompute/pkg/frame"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/request"
	"peercompute/pkg/store"
	"peercompute/pkg/supervisor"
	"peercompute/pkg/wire"
)

// This file turns the signed requests of peers into local operations.

// done is a reply without a body for a change.
func done(c change) request.Reply {
	return request.Reply{Body: wire.Empty{}, Commit: c.commit, After: c.after}
}

func (n *Node) onDeploy(ctx context.Context, c *request.Call) (request.Reply, error) {
	var in wire.Deploy
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return request.Reply{}, err
	}
	out, ch, err := n.deploy(ctx, c.From, c.Grant, c.Digest, in)
	if err != nil {
		return request.Reply{}, err
	}
	return request.Reply{Body: out.answer(), Commit: ch.commit, After: ch.after}, nil
}

func decodeRef(c *request.Call) (wire.Ref, error) {
	var in wire.Ref
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return in, err
	}
	_, err := mesh.ParseWorkloadID(string(in.Workload))
	return in, err
}

func (n *Node) onStop(_ context.Context, c *request.Call) (request.Reply, error) {
	in, err := decodeRef(c)
	return done(n.stop(c.From, in.Workload)), err
}

func (n *Node) onRemove(_ context.Context, c *request.Call) (request.Reply, error) {
	in, err := decodeRef(c)
	return done(n.remove(c.From, in.Workload, in.Force)), err
}

func (n *Node) onExpose(_ context.Context, c *request.Call) (request.Reply, error) {
	var in wire.Expose
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return request.Reply{}, err
	}
	ch, err := n.expose(c.From, in.Workload, &in.Publish)
	return done(ch), err
}

func (n *Node) onHide(_ context.Context, c *request.Call) (request.Reply, error) {
	in, err := decodeRef(c)
	if err != nil {
		return request.Reply{}, err
	}
	ch, err := n.expose(c.From, in.Workload, nil)
	return done(ch), err
}

func (n *Node) onList(_ context.Context, c *request.Call) (request.Reply, error) {
	views, err := n.list(c.From)
	if err != nil {
		return request.Reply{}, err
	}
	// As many as fit into one answer; specs can be large.
	out, size := wire.ListReply{}, 0
	for _, v := range views {
		b, err := wire.Marshal(v)
		if err != nil {
			return request.Reply{}, err
		}
		if size += len(b); size > wire.MaxResponse/2 {
			out.Truncated = true
			break
		}
		out.Workloads = append(out.Workloads, v)
	}
	return request.Reply{Body: out}, nil
}

func (n *Node) onInspect(_ context.Context, c *request.Call) (request.Reply, error) {
	in, err := decodeRef(c)
	if err != nil {
		return request.Reply{}, err
	}
	r, err := n.record(c.From, in.Workload)
	if err != nil {
		return request.Reply{}, err
	}
	return request.Reply{Body: n.view(r)}, nil
}

// onWatch streams a workload's view at each change, until it is final or the
// asker has seen enough.
func (n *Node) onWatch(_ context.Context, c *request.Call) (request.Reply, error) {
	in, err := decodeRef(c)
	if err != nil {
		return request.Reply{}, err
	}
	if _, err := n.present(c.From, in.Workload); err != nil {
		return request.Reply{}, err
	}
	return request.Reply{Body: wire.Empty{}, Stream: func(ctx context.Context, s *peernet.Stream) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() { // the asker hangs up when it has seen enough
			_, _ = io.Copy(io.Discard, s)
			cancel()
		}()
		return n.watch(ctx, c.From, in.Workload, func(v wire.View) error {
			b, err := wire.Marshal(v)
			if err != nil {
				return err
			}
			s.SetWriteDeadline(time.Now().Add(streamWrite))
			return frame.Write(s, wire.FrameView, b)
		})
	}}, nil
}

// streamWrite bounds how long a peer may leave one piece of a stream unread.
const streamWrite = time.Minute

// watch calls emit at each change of a workload's state at once, and at each step of
// its progress at most every 100 ms, until ctx ends or the workload is final or gone.
func (n *Node) watch(ctx context.Context, who mesh.PeerID, id mesh.WorkloadID, emit func(wire.View) error) error {
	const pause = 100 * time.Millisecond
	var last wire.View
	same := func(v wire.View) bool {
		return v.Status == last.Status && v.Revision == last.Revision && (v.Update == nil) == (last.Update == nil) && (v.Update == nil || *v.Update == *last.Update)
	}
	var sent time.Time
	for {
		_, changed, _ := n.sup.Status(id) // nil without a keeper: never
		routed := n.gateways.changed()
		r, err := n.present(who, id)
		if err != nil {
			return nil // it was removed
		}
		v := n.view(r)
		wait := time.Second
		switch {
		case same(v):
		case v.Update == nil && furtherOnly(v.Status, last.Status) && time.Since(sent) < pause:
			wait = pause - time.Since(sent)
		default:
			if err := emit(v); err != nil {
				return err
			}
			last, sent = v, time.Now()
		}
		if v.Status.State.Final() && (v.Update == nil || v.Update.Status.State.Final()) && r.Desired != supervisor.Remove {
			return nil
		}
		poll := time.NewTimer(wait)
		select {
		case <-changed:
		case <-routed:
		case <-poll.C:
		case <-ctx.Done():
		}
		poll.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// furtherOnly reports whether nothing but the progress differs.
func furtherOnly(a, b mesh.Status) bool {
	if a.Progress == nil || b.Progress == nil {
		return false
	}
	a.Progress, b.Progress = nil, nil
	return a == b
}

// deadlineWriter gives each write its own deadline.
type deadlineWriter struct{ s *peernet.Stream }

func (w deadlineWriter) Write(p []byte) (int, error) {
	w.s.SetWriteDeadline(time.Now().Add(streamWrite))
	return w.s.Write(p)
}

func endWithError(s *peernet.Stream, err error) error {
	b, merr := wire.Marshal(wire.NewError(err))
	if merr != nil {
		return merr
	}
	return errors.Join(frame.Write(deadlineWriter{s}, wire.FrameError, b), s.CloseWrite())
}

// onPutModule takes a module that the sender may deploy afterwards.
func (n *Node) onPutModule(_ context.Context, c *request.Call) (request.Reply, error) {
	var in wire.PutModule
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return request.Reply{}, err
	}
	if err := mayDeploy(c); err != nil {
		return request.Reply{}, err
	}
	if in.Size <= 0 || in.Size > wire.MaxModule {
		return request.Reply{}, mesh.Errorf(mesh.TooLarge, "a module of %d bytes; the most is %d MiB", in.Size, wire.MaxModule>>20).WithRule("host.module-size")
	}
	if _, err := n.cfg.Modules.Path(in.Digest); err == nil {
		return request.Reply{Body: wire.PutModuleReply{Have: true}}, nil
	} else if mesh.KindOf(err) != mesh.NotFound {
		return request.Reply{}, err
	}
	return n.uploads.receive(c.From, in.Size, wire.PutModuleReply{}, func(ctx context.Context, r io.Reader) error {
		_, _, err := n.cfg.Modules.put(ctx, r, in.Digest, n.modulesInUse)
		return err
	})
}

type deadlineReader struct{ s *peernet.Stream }

func (r deadlineReader) Read(p []byte) (int, error) {
	r.s.SetReadDeadline(time.Now().Add(streamWrite))
	return r.s.Read(p)
}

// exactly reads left bytes and fails if the stream ends before.
type exactly struct {
	r    io.Reader
	left int64
}

func (e *exactly) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(p[:min(int64(len(p)), e.left)])
	e.left -= int64(n)
	if err == io.EOF && e.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// modulesInUse lists the digests that some workload here needs.
func (n *Node) modulesInUse() (map[string]bool, error) {
	used := map[string]bool{}
	err := n.m.Store.View(func(tx *store.Tx) error { return eachDigest(tx, used) })
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, j := range n.jobs {
		used[j.spec.Digest] = true
	}
	return used, err
}
