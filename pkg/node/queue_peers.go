package node

import (
	"context"
	"io"

	"peercompute/pkg/frame"
	"peercompute/pkg/jobs"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/request"
	"peercompute/pkg/store"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// This file is the signed requests of peers about the queue.

// jobView is a job as it crosses the wire.
func jobView(v jobs.View, receipt bool) wire.JobView {
	out := wire.JobView{
		ID: v.ID, Name: v.Spec.Name, Module: v.Spec.Digest, State: string(v.State), Submitted: v.Submitted.UnixMilli(),
		Ahead: v.Ahead, Attempts: v.Attempts, OutputSize: v.Output.Size, LogSize: v.Log.Size, Dropped: v.Dropped,
	}
	out.Request, _ = wire.ParseDigest(v.Request) // it is one, or was never set
	if !v.Started.IsZero() {
		out.Started = v.Started.UnixMilli()
	}
	if v.State == jobs.Done {
		out.Ended, out.Exit = v.Ended.UnixMilli(), &v.Exit
	}
	if receipt {
		out.Receipt = v.Receipt
	}
	return out
}

func (n *Node) onPutInput(_ context.Context, c *request.Call) (request.Reply, error) {
	var in wire.PutInput
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return request.Reply{}, err
	}
	if err := mayDeploy(c); err != nil {
		return request.Reply{}, err
	}
	if in.Size <= 0 || in.Size > wire.MaxInput {
		return request.Reply{}, mesh.Errorf(mesh.TooLarge, "an input of %d bytes; the most is %d MiB", in.Size, wire.MaxInput>>20).WithRule("host.input-size")
	}
	inputs, err := n.queuedInputs(c.From)
	if err != nil {
		return request.Reply{}, err
	}
	if _, err := inputs.Path(in.Digest); err == nil {
		return request.Reply{Body: wire.PutInputReply{Have: true}}, nil
	} else if mesh.KindOf(err) != mesh.NotFound {
		return request.Reply{}, err
	}
	return n.uploads.receive(c.From, in.Size, wire.PutInputReply{}, func(ctx context.Context, r io.Reader) error {
		_, _, err := inputs.Put(ctx, r, in.Digest, n.inputsInUse(c.From))
		return err
	})
}

// mayDeploy refuses who may not run anything here.
func mayDeploy(c *request.Call) error {
	if c.Grant.Allow.Has(trust.Deploy) {
		return nil
	}
	return mesh.Errorf(mesh.Denied, "you may not deploy here").WithRule("grant.deploy").
		WithHint("ask its owner for: peerctl peers allow %s --allow deploy", c.From)
}

func (n *Node) onSubmit(ctx context.Context, c *request.Call) (request.Reply, error) {
	var in wire.Submit
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return request.Reply{}, err
	}
	sub, err := n.submit(ctx, c.From, c.Grant, c.Digest, in)
	if err != nil {
		return request.Reply{}, err
	}
	if in.Key != "" {
		if have, ok, err := n.keyed(c.From, in.Key); err != nil || ok {
			return request.Reply{Body: jobView(have, true)}, err
		}
	}
	queued := sub.Job.ID // which the answer names, and it is signed before the commit
	commit := func(tx *store.Tx) error {
		if err := sub.Commit(tx); err != nil || sub.Job.ID == queued {
			return err
		}
		return mesh.Errorf(mesh.Conflict, "a job with that key was queued just now").WithRule("jobs.key").WithHint("ask again")
	}
	return request.Reply{Body: jobView(jobs.View{Job: sub.Job}, false), Commit: commit, After: sub.After}, nil
}

// keyed is the job of an owner that has a key.
func (n *Node) keyed(owner mesh.PeerID, key string) (v jobs.View, ok bool, err error) {
	err = n.m.Store.View(func(tx *store.Tx) error {
		id, found := jobs.Keyed(tx, owner, key)
		if ok = found; !found {
			return nil
		}
		v, err = n.queue.View(tx, id)
		return err
	})
	return v, ok, err
}

func (n *Node) onListJobs(_ context.Context, c *request.Call) (request.Reply, error) {
	views, err := n.listJobs(c.From)
	if err != nil {
		return request.Reply{}, err
	}
	out, size := wire.ListJobsReply{}, 0
	for _, v := range views {
		one := jobView(v, false)
		b, err := wire.Marshal(one)
		if err != nil {
			return request.Reply{}, err
		}
		if size += len(b); size > wire.MaxResponse/2 {
			out.Truncated = true
			break
		}
		out.Jobs = append(out.Jobs, one)
	}
	return request.Reply{Body: out}, nil
}

func decodeJobRef(c *request.Call) (wire.JobRef, error) {
	var in wire.JobRef
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return in, err
	}
	_, err := mesh.ParseWorkloadID(string(in.Job))
	return in, err
}

func (n *Node) onJob(_ context.Context, c *request.Call) (request.Reply, error) {
	in, err := decodeJobRef(c)
	if err != nil {
		return request.Reply{}, err
	}
	v, err := n.viewJob(c.From, in.Job)
	if err != nil {
		return request.Reply{}, err
	}
	return request.Reply{Body: jobView(v, true)}, nil
}

func (n *Node) onCancelJob(_ context.Context, c *request.Call) (request.Reply, error) {
	in, err := decodeJobRef(c)
	return done(n.cancelJob(c.From, in.Job)), err
}

func (n *Node) onJobOutput(_ context.Context, c *request.Call) (request.Reply, error) {
	var in wire.JobOutput
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return request.Reply{}, err
	}
	if _, err := n.viewJob(c.From, in.Job); err != nil {
		return request.Reply{}, err
	}
	return request.Reply{Body: wire.Empty{}, Stream: func(ctx context.Context, s *peernet.Stream) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() { // the asker hangs up when it has seen enough
			_, _ = io.Copy(io.Discard, s)
			cancel()
		}()
		out := &lockedWriter{w: deadlineWriter{s}}
		record, err := n.jobOutput(ctx, in, frame.Writer{W: out, Type: wire.FrameStdout}, frame.Writer{W: out, Type: wire.FrameStderr})
		if err != nil {
			return endWithError(s, err)
		}
		v, err := n.viewJob(c.From, in.Job)
		if err != nil {
			return endWithError(s, err)
		}
		return sendEnd(s, out, v, record)
	}}, nil
}

// sendEnd sends what is known of the end of a job, if it has ended.
func sendEnd(s *peernet.Stream, out io.Writer, v jobs.View, record []byte) error {
	if v.State != jobs.Done {
		if err := frame.Write(out, wire.FrameEnd, nil); err != nil {
			return err
		}
		return s.CloseWrite()
	}
	exit, err := wire.Marshal(v.Exit)
	if err != nil {
		return err
	}
	f := frame.Writer{W: out, Type: wire.FrameRecord}
	if _, err := f.Write(record); err != nil {
		return err
	}
	if len(v.Receipt) > 0 {
		if err := frame.Write(out, wire.FrameReceipt, v.Receipt); err != nil {
			return err
		}
	}
	if err := frame.Write(out, wire.FrameExit, exit); err != nil {
		return err
	}
	return s.CloseWrite()
}
