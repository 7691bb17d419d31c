package node

import (
	"context"
	"fmt"

	"peercompute/pkg/archive"
	"peercompute/pkg/audit"
	"peercompute/pkg/control"
	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
	"peercompute/pkg/request"
	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

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

// copying is an archive of files that go into or come out of a workload. action is its
// name on record.
func (n *Node) copying(id mesh.WorkloadID, action, path string, do func(context.Context, driver.Copier, ends) (archive.Report, error)) inside[wire.Copied] {
	return inside[wire.Copied]{
		workload: id, end: wire.FrameCopied, name: "the copy",
		ready: func() (func(context.Context, ends) (wire.Copied, error), error) {
			x, err := n.copier(id)
			return func(ctx context.Context, s ends) (wire.Copied, error) {
				did, err := do(ctx, x, s)
				return wire.Copied(did), err
			}, err
		},
		note: func(tx *store.Tx, who mesh.PeerID) error { return n.noteCopy(tx, who, id, action, path) },
	}
}

func (n *Node) copyOut(c wire.CopyOut) inside[wire.Copied] {
	it := n.copying(c.Workload, "copy-out", c.Path, func(ctx context.Context, x driver.Copier, s ends) (archive.Report, error) {
		return x.CopyOut(ctx, c.Path, s.out)
	})
	it.verb, it.body, it.output = wire.VerbCopyOut, c, true
	return it
}

func (n *Node) copyIn(c wire.CopyIn) inside[wire.Copied] {
	it := n.copying(c.Workload, "copy-in", c.Path, func(ctx context.Context, x driver.Copier, s ends) (archive.Report, error) {
		return x.CopyIn(ctx, driver.CopyTo{Path: c.Path, Tree: c.Tree}, s.in)
	})
	it.verb, it.body, it.input = wire.VerbCopyIn, c, true
	return it
}

func (n *Node) onCopyOut(ctx context.Context, c *request.Call) (request.Reply, error) {
	var in wire.CopyOut
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return request.Reply{}, err
	}
	if err := mesh.ValidPath(in.Path); err != nil {
		return request.Reply{}, err
	}
	return serveInside(ctx, n, c.From, n.copyOut(in))
}

func (n *Node) onCopyIn(ctx context.Context, c *request.Call) (request.Reply, error) {
	var in wire.CopyIn
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return request.Reply{}, err
	}
	if err := mesh.ValidPath(in.Path); err != nil {
		return request.Reply{}, err
	}
	return serveInside(ctx, n, c.From, n.copyIn(in))
}

// Copy copies files into or out of a workload, wherever that is.
func (a *api) Copy(ctx context.Context, ref, peer string, c control.Copy, begin func() (control.Streams, error)) (archive.Report, error) {
	if err := mesh.ValidPath(c.Path); err != nil {
		return archive.Report{}, err
	}
	did, err := doInside(ctx, a, ref, peer, func(id mesh.WorkloadID) inside[wire.Copied] {
		if c.In {
			return a.n.copyIn(wire.CopyIn{Workload: id, Path: c.Path, Tree: c.Tree})
		}
		return a.n.copyOut(wire.CopyOut{Workload: id, Path: c.Path})
	}, begin)
	return archive.Report(did), err
}
