package node

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/driver"
	"peercompute/pkg/frame"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/request"
	"peercompute/pkg/wire"
)

// logs is the log of a revision of a workload here that who may see; 0 = the one that
// serves.
func (n *Node) logs(ctx context.Context, who mesh.PeerID, id mesh.WorkloadID, revision int, o driver.LogOptions) (driver.LogReader, error) {
	if o.Tail < 0 || !o.Stream.Valid() {
		return nil, mesh.Errorf(mesh.Invalid, "a log is chosen by a number of lines and by stdout or stderr")
	}
	r, err := n.record(who, id)
	if err != nil {
		return nil, err
	}
	run, kind, err := r.RunOf(revision)
	if err != nil {
		return nil, err
	}
	d := n.cfg.Runtimes[kind].Driver
	if d == nil {
		return nil, mesh.Errorf(mesh.Unsupported, "this node cannot run a %s", kind)
	}
	return d.Logs(ctx, run, o)
}

func (n *Node) onLogs(_ context.Context, c *request.Call) (request.Reply, error) {
	var in wire.Logs
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return request.Reply{}, err
	}
	if _, err := n.record(c.From, in.Workload); err != nil {
		return request.Reply{}, err
	}
	o := driver.LogOptions{Follow: in.Follow, Tail: in.Tail, Stream: in.Stream}
	if in.Since != 0 {
		o.Since = time.Unix(0, in.Since)
	}
	if o.Tail < 0 || !o.Stream.Valid() {
		return request.Reply{}, mesh.Errorf(mesh.Invalid, "a log is chosen by a number of lines and by stdout or stderr")
	}
	return request.Reply{Body: wire.Empty{}, Stream: func(ctx context.Context, s *peernet.Stream) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		log, err := n.logs(ctx, c.From, in.Workload, in.Revision, o)
		if err != nil {
			return endWithError(s, err)
		}
		defer log.Close()
		go func() {
			_, _ = io.Copy(io.Discard, s)
			cancel()
		}()
		if in.Entries {
			err = sendEntries(s, log)
		} else {
			_, err = io.Copy(frame.Writer{W: deadlineWriter{s}, Type: wire.FrameStdout}, driver.PlainLog(log))
		}
		if err != nil && ctx.Err() == nil {
			return endWithError(s, err)
		}
		return frame.Write(s, wire.FrameEnd, nil)
	}}, nil
}

// sendEntries sends a log entry by entry, to its end.
func sendEntries(s *peernet.Stream, log driver.LogReader) error {
	for {
		e, err := log.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for text := e.Text; ; {
			e.Text = text[:min(len(text), wire.MaxLogText)]
			text = text[len(e.Text):]
			b, err := wire.Marshal(e)
			if err != nil {
				return err
			}
			if err := frame.Write(deadlineWriter{s}, wire.FrameLog, b); err != nil {
				return err
			}
			if len(text) == 0 {
				break
			}
		}
	}
}

// remoteLogs is a log that arrives as frames.
func (n *Node) remoteLogs(ctx context.Context, p mesh.PeerID, id mesh.WorkloadID, revision int, o driver.LogOptions) (driver.LogReader, error) {
	l := wire.Logs{Workload: id, Follow: o.Follow, Tail: o.Tail, Stream: o.Stream, Entries: true, Revision: revision}
	if !o.Since.IsZero() {
		l.Since = o.Since.UnixNano()
	}
	s, err := n.m.Client.Open(ctx, p, wire.VerbLogs, l, nil)
	if err != nil {
		return nil, n.elsewhere(p, err)
	}
	return &remoteLog{
		s: s, r: bufio.NewReaderSize(s, 32<<10), stop: context.AfterFunc(ctx, s.Reset),
		fail: func(err error) error { return n.elsewhere(p, err) },
	}, nil
}

type remoteLog struct {
	s    *peernet.Stream
	r    *bufio.Reader
	stop func() bool
	once sync.Once
	fail func(error) error
}

func (l *remoteLog) Next() (mesh.LogEntry, error) {
	for {
		typ, payload, err := frame.Read(l.r)
		switch {
		case err != nil:
			return mesh.LogEntry{}, io.ErrUnexpectedEOF
		case typ == wire.FrameLog:
			var e mesh.LogEntry
			err := wire.DecodeBody(payload, &e)
			if err == nil && (e.Stream == "" || !e.Stream.Valid()) {
				err = mesh.Errorf(mesh.Forged, "an entry of a log is of no stream")
			}
			return e, err
		case typ == wire.FrameError:
			return mesh.LogEntry{}, l.fail(remoteError(payload))
		case typ == wire.FrameEnd:
			return mesh.LogEntry{}, io.EOF
		}
	}
}

func (l *remoteLog) Close() error {
	l.once.Do(func() {
		l.stop()
		l.s.Reset()
	})
	return nil
}

// Logs is the log of a workload, wherever that runs.
func (a *api) Logs(ctx context.Context, ref, peer string, o control.LogOptions) (control.LogReader, error) {
	d, err := a.find(ctx, ref, peer)
	if err != nil {
		return nil, err
	}
	return a.logsOf(ctx, d.Peer, d.View.Workload.ID, 0, driver.LogOptions{Follow: o.Follow, Tail: o.Tail, Since: o.Since, Stream: o.Stream})
}

func (a *api) logsOf(ctx context.Context, p mesh.PeerID, id mesh.WorkloadID, revision int, o driver.LogOptions) (driver.LogReader, error) {
	if p == a.n.m.Key.ID {
		return a.n.logs(ctx, p, id, revision, o)
	}
	return a.n.remoteLogs(ctx, p, id, revision, o)
}

// lastLines is the end of the log of a workload's revision, for a deploy that failed.
func (a *api) lastLines(ctx context.Context, p mesh.PeerID, id mesh.WorkloadID, revision int) []string {
	const lines, most = 20, 64 << 10
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	log, err := a.logsOf(ctx, p, id, revision, driver.LogOptions{Tail: lines})
	if err != nil {
		return nil
	}
	defer log.Close()
	data, _ := io.ReadAll(io.LimitReader(driver.PlainLog(log), most)) // what there is will do
	data = bytes.TrimRight(data, "\n")
	if len(data) == 0 {
		return nil
	}
	return strings.Split(string(data), "\n")
}
