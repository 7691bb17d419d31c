package node

import (
	"context"
	"io"
	"sync"

	"peercompute/pkg/driver"
	"peercompute/pkg/frame"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/request"
	"peercompute/pkg/store"
	"peercompute/pkg/supervisor"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// This file runs jobs in the foreground: they live as long as the one who waits
// for them, and count against the same limits as workloads while they do.

func eachDigest(tx *store.Tx, used map[string]bool) error {
	return supervisor.Each(tx, func(r supervisor.Record) error {
		used[r.Workload.Spec.Digest] = true
		return nil
	})
}

// job admits a job. Its resources are held from commit until release.
func (n *Node) job(ctx context.Context, who mesh.PeerID, g trust.Grant, request wire.Digest, spec mesh.Spec) (w mesh.Workload, commit func(*store.Tx) error, release func(), err error) {
	spec.Shape, spec.Restart, spec.Publish = mesh.Job, mesh.RestartNo, nil
	spec = spec.WithDefaults()
	if spec.Runtime != mesh.Wasm {
		return w, nil, nil, mesh.Errorf(mesh.Unsupported, "only WASM modules run as foreground jobs")
	}
	if err := spec.Validate(); err != nil {
		return w, nil, nil, err
	}
	if _, err := n.cfg.Modules.Path(spec.Digest); err != nil {
		return w, nil, nil, err
	}
	policy := n.policy(ctx)
	w = mesh.Workload{ID: mesh.NewWorkloadID(request), Owner: who, Spec: spec, Created: n.m.Now().UTC()}
	release = func() {
		n.mu.Lock()
		delete(n.jobs, request)
		n.mu.Unlock()
	}
	commit = func(tx *store.Tx) error {
		release() // a transaction may run twice
		if err := n.decide(tx, policy, who, g, spec); err != nil {
			return err
		}
		n.mu.Lock()
		n.jobs[request] = heldJob{who, spec}
		n.mu.Unlock()
		return nil
	}
	return w, commit, release, nil
}

func (n *Node) execute(ctx context.Context, w mesh.Workload, stdin io.Reader, stdout, stderr io.Writer) (mesh.Exit, error) {
	r, ok := n.cfg.Runtimes[w.Spec.Runtime].Driver.(driver.Runner)
	if !ok {
		return mesh.Exit{}, mesh.Errorf(mesh.Unsupported, "this node cannot run jobs")
	}
	if _, err := n.cfg.Runtimes[w.Spec.Runtime].Driver.Prepare(ctx, w, func(mesh.Progress) {}); err != nil {
		return mesh.Exit{}, err
	}
	ran, err := r.Run(ctx, w, driver.Job{Stdin: stdin, Stdout: stdout, Stderr: stderr, Seed: driver.Seed(randomDigest())})
	return ran.Exit, err
}

func (n *Node) onRun(ctx context.Context, c *request.Call) (request.Reply, error) {
	var in wire.Deploy
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return request.Reply{}, err
	}
	w, commit, release, err := n.job(ctx, c.From, c.Grant, c.Digest, in.Spec)
	if err != nil {
		return request.Reply{}, err
	}
	return request.Reply{
		Body: wire.Accepted{Workload: w.ID, Spec: w.Spec}, Commit: commit, Cancel: release,
		Stream: func(ctx context.Context, s *peernet.Stream) error {
			defer release()
			return n.serveJob(ctx, s, w)
		},
	}, nil
}

// serveJob runs a job with its streams as frames on s.
func (n *Node) serveJob(ctx context.Context, s *peernet.Stream, w mesh.Workload) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stdin, in := io.Pipe()
	var reading sync.WaitGroup
	reading.Go(func() { feed(s, in, cancel) })
	out := &lockedWriter{w: deadlineWriter{s}}
	exit, err := n.execute(ctx, w, stdin, frame.Writer{W: out, Type: wire.FrameStdout}, frame.Writer{W: out, Type: wire.FrameStderr})
	stdin.Close()
	defer reading.Wait()
	defer s.CloseRead()
	if err != nil {
		return endWithError(s, err)
	}
	b, err := wire.Marshal(exit)
	if err != nil {
		return err
	}
	if err := frame.Write(out, wire.FrameExit, b); err != nil {
		return err
	}
	return s.CloseWrite()
}

// feed turns frames into a job's input. A stream that breaks ends the job.
func feed(r io.Reader, in *io.PipeWriter, cancel func()) {
	for {
		typ, p, err := frame.Read(r)
		if err != nil {
			in.CloseWithError(io.ErrUnexpectedEOF)
			cancel()
			return
		}
		if typ != wire.FrameStdin {
			continue
		}
		if len(p) == 0 {
			in.Close()
		} else if _, err := in.Write(p); err != nil {
			continue // the job reads no more; keep watching the stream
		}
	}
}

// lockedWriter lets two streams share a connection frame by frame.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
