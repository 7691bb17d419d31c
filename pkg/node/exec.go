package node

import (
	"context"
	"fmt"
	"path"

	"peercompute/pkg/audit"
	"peercompute/pkg/control"
	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
	"peercompute/pkg/request"
	"peercompute/pkg/store"
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

// program is a program that is run inside.
func (n *Node) program(in wire.Exec) inside[mesh.Exit] {
	return inside[mesh.Exit]{
		workload: in.Workload, verb: wire.VerbExec, body: in, end: wire.FrameExit, name: "the program",
		input: in.Stdin, output: true, errors: true,
		ready: func() (func(context.Context, ends) (mesh.Exit, error), error) {
			x, err := n.execer(in.Workload)
			return func(ctx context.Context, s ends) (mesh.Exit, error) {
				e := driver.Exec{Argv: in.Argv, TTY: in.TTY, Stdout: s.out, Stderr: s.err, Size: s.sizes}
				if in.Stdin {
					e.Stdin = s.in
				}
				status, err := x.Exec(ctx, e)
				return mesh.Exit{Code: status}, err
			}, err
		},
		note: func(tx *store.Tx, who mesh.PeerID) error { return n.noteExec(tx, who, in.Workload, in.Argv) },
	}
}

func (n *Node) onExec(ctx context.Context, c *request.Call) (request.Reply, error) {
	var in wire.Exec
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return request.Reply{}, err
	}
	if err := mesh.ValidArgv(in.Argv); err != nil {
		return request.Reply{}, err
	}
	return serveInside(ctx, n, c.From, n.program(in))
}

// Exec runs a program inside a workload, wherever that is.
func (a *api) Exec(ctx context.Context, ref, peer string, e control.Exec, begin func() (control.Streams, error)) (int, error) {
	if err := mesh.ValidArgv(e.Argv); err != nil {
		return 0, err
	}
	x, err := doInside(ctx, a, ref, peer, func(id mesh.WorkloadID) inside[mesh.Exit] {
		return a.n.program(wire.Exec{Workload: id, Argv: e.Argv, TTY: e.TTY, Stdin: e.Stdin})
	}, begin)
	return x.Code, err
}
