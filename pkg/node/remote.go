package node

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/frame"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/receipt"
	"peercompute/pkg/request"
	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

// This file is what this node asks of other peers on the local person's behalf.

// deployed is a workload of ours on another peer, as last seen.
type deployed struct {
	Peer  mesh.PeerID `json:"peer"`
	View  wire.View   `json:"view"`
	Added time.Time   `json:"added,omitzero"` // when it was first known to be there
}

func (n *Node) remember(ctx context.Context, p mesh.PeerID, v wire.View) error {
	now := n.m.Now().UTC()
	return n.m.Store.Update(ctx, func(tx *store.Tx) error {
		var before deployed
		known, err := tx.GetJSON(store.Remote, []byte(v.Workload.ID), &before)
		if err != nil {
			return err
		}
		d := deployed{p, v, now}
		if known {
			d.Added = before.Added
		}
		return tx.PutJSON(store.Remote, []byte(v.Workload.ID), d)
	})
}

func (n *Node) forgetRemote(ctx context.Context, id mesh.WorkloadID) error {
	return n.m.Store.Update(ctx, func(tx *store.Tx) error {
		var d deployed
		if _, err := tx.GetJSON(store.Remote, []byte(id), &d); err != nil {
			return err
		}
		if d.View.Workload.Spec.Runtime == mesh.Container {
			if err := receipt.Left(tx, d.Peer, d.present(n.m.Now())); err != nil {
				return err
			}
		}
		return tx.Delete(store.Remote, []byte(id))
	})
}

// present is for how long a workload was where it is.
func (d deployed) present(now time.Time) time.Duration {
	since := d.Added
	if since.IsZero() { // an older peerd did not write that down
		since = d.View.Workload.Created
	}
	return max(0, now.Sub(since))
}

func (n *Node) remembered() ([]deployed, error) {
	var out []deployed
	err := n.m.Store.View(func(tx *store.Tx) error {
		return eachDeployed(tx, func(d deployed) { out = append(out, d) })
	})
	return out, err
}

func eachDeployed(tx *store.Tx, fn func(deployed)) error {
	return tx.Each(store.Remote, nil, func(k, _ []byte) (bool, error) {
		var d deployed
		_, err := tx.GetJSON(store.Remote, k, &d)
		fn(d)
		return err == nil, err
	})
}

// elsewhere says in an error which peer it is about.
func (n *Node) elsewhere(p mesh.PeerID, err error) error {
	if err == nil {
		return nil
	}
	name := n.m.Trust.Name(p)
	var refused *request.Refused
	if errors.As(err, &refused) {
		cause := *refused.Cause
		if rest, ok := strings.CutPrefix(cause.Hint, "ask its owner "); ok {
			cause.Hint = "ask " + name + " " + rest
		}
		return &control.PeerError{Peer: name, Cause: &cause}
	}
	e := mesh.AsError(err)
	if e.Kind == mesh.Unavailable || e.Kind == mesh.Timeout {
		return mesh.Errorf(e.Kind, "cannot reach %s", name).WithHint("%s", e.Hint).Because(err)
	}
	return err
}

// ask sends one request.
func (n *Node) ask(ctx context.Context, p mesh.PeerID, verb wire.Verb, body, out any) error {
	return n.elsewhere(p, n.m.Client.Do(ctx, p, verb, body, out))
}

// withModule does what p needs a module of ours for. A peer that had it of late is not
// asked whether it still does: if it does not it says so, nothing was done, and it is sent.
func (n *Node) withModule(ctx context.Context, p mesh.PeerID, digest string, progress func(mesh.Progress), do func() error) error {
	f := foundImage{peer: p, digest: digest}
	if n.pushes.known(f, time.Now()) {
		err := do()
		if err == nil {
			n.pushes.learn(f, time.Now())
		}
		if err == nil || mesh.AsError(err).Rule != "module.missing" {
			return err
		}
	}
	if err := n.sendModule(ctx, p, digest, progress); err != nil {
		return err
	}
	n.pushes.learn(f, time.Now())
	return do()
}

// sendModule makes sure that p has a module, and reports bytes as they go.
func (n *Node) sendModule(ctx context.Context, p mesh.PeerID, digest string, progress func(mesh.Progress)) error {
	path, err := n.cfg.Modules.Path(digest)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	var reply wire.PutModuleReply
	s, err := n.m.Client.Open(ctx, p, wire.VerbPutModule, wire.PutModule{Digest: digest, Size: info.Size()}, &reply)
	if err != nil {
		return n.elsewhere(p, err)
	}
	defer s.Reset()
	defer context.AfterFunc(ctx, s.Reset)()
	if reply.Have {
		return nil
	}
	meter := &metered{r: f, total: info.Size(), report: progress, what: "sending the module"}
	return n.elsewhere(p, sendAll(s, meter, "the module"))
}

// sendAll sends what a peer is to keep, and waits for its word that it does.
func sendAll(s *peernet.Stream, r io.Reader, what string) error {
	if _, err := io.Copy(deadlineWriter{s}, r); err != nil {
		return mesh.Errorf(mesh.Unavailable, "the connection was lost while %s was sent", what).Because(err)
	}
	return readEnd(s)
}

// readEnd waits for the other side's word that all went well.
func readEnd(r io.Reader) error {
	typ, payload, err := frame.Read(r)
	if err != nil {
		return mesh.Errorf(mesh.Unavailable, "the connection was lost").Because(err)
	}
	if typ == wire.FrameError {
		return remoteError(payload)
	}
	return nil
}

func remoteError(payload []byte) error {
	var e wire.Error
	if err := wire.DecodeBody(payload, &e); err != nil {
		return err
	}
	return &request.Refused{Cause: e.Err()}
}

// metered reports how much was read, at most ten times a second.
type metered struct {
	r           io.Reader
	done, total int64
	last        time.Time
	report      func(mesh.Progress)
	what        string
}

func (m *metered) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.done += int64(n)
	if now := time.Now(); m.report != nil && (now.Sub(m.last) > 100*time.Millisecond || err == io.EOF) {
		m.last = now
		m.report(mesh.Progress{What: m.what, Done: m.done, Total: m.total})
	}
	return n, err
}

// watchRemote calls emit for each view that p reports, until emit returns false.
func (n *Node) watchRemote(ctx context.Context, p mesh.PeerID, id mesh.WorkloadID, emit func(wire.View) (bool, error)) error {
	s, err := n.m.Client.Open(ctx, p, wire.VerbWatch, wire.Ref{Workload: id}, nil)
	if err != nil {
		return n.elsewhere(p, err)
	}
	defer s.Reset()
	defer context.AfterFunc(ctx, s.Reset)()
	for {
		typ, payload, err := frame.Read(s)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return n.elsewhere(p, mesh.Errorf(mesh.Unavailable, "the connection was lost").Because(err))
		}
		if typ != wire.FrameView {
			continue
		}
		var v wire.View
		if err := wire.DecodeBody(payload, &v); err != nil {
			return err
		}
		if more, err := emit(v); err != nil || !more {
			return err
		}
	}
}
