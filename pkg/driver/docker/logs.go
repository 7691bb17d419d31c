package docker

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

// Logs returns what the workload's last run has written to stdout and stderr, in
// order. The engine keeps the last 16 MiB.
func (d *Driver) Logs(ctx context.Context, id mesh.WorkloadID, o driver.LogOptions) (driver.LogReader, error) {
	if _, err := mesh.ParseWorkloadID(string(id)); err != nil {
		return nil, err
	}
	tail := "all"
	if o.Tail > 0 {
		tail = strconv.Itoa(o.Tail)
	}
	since := ""
	if !o.Since.IsZero() {
		since = fmt.Sprintf("%d.%09d", o.Since.Unix(), o.Since.Nanosecond())
	}
	in, err := d.cli.ContainerLogs(ctx, containerName(d.node, id), container.LogsOptions{
		ShowStdout: true, ShowStderr: true, Timestamps: true, Follow: o.Follow, Tail: tail, Since: since,
	})
	if errdefs.IsNotFound(err) {
		return nil, mesh.Errorf(mesh.NotFound, "workload %s has no log here", id).Because(err)
	}
	if err != nil {
		return nil, d.fail(err, "read the log")
	}
	return &entries{in: in, show: o}, nil
}

// maxLogFrame bounds one frame of the engine's log; it cuts lines at 16 KiB itself.
const maxLogFrame = 1 << 20

// entries turns the engine's stream of frames into what they carry. A frame is
// one byte for the stream (1 stdout, 2 stderr), three zero bytes, the length of
// what follows as a big-endian uint32, and so many bytes: a time, a space, a line or
// a part of one.
type entries struct {
	in   io.ReadCloser
	buf  []byte
	show driver.LogOptions
}

var errLogFrame = errors.New("malformed frame in the engine's log")

// Next reads on to the next entry that is selected.
func (r *entries) Next() (mesh.LogEntry, error) {
	for {
		e, err := r.next()
		if err != nil || r.show.Shows(e) {
			return e, err
		}
	}
}

func (r *entries) next() (mesh.LogEntry, error) {
	var head [8]byte
	if _, err := io.ReadFull(r.in, head[:]); err != nil {
		return mesh.LogEntry{}, err
	}
	size := binary.BigEndian.Uint32(head[4:])
	if head[0] > 2 || head[1] != 0 || head[2] != 0 || head[3] != 0 || size > maxLogFrame {
		return mesh.LogEntry{}, errLogFrame
	}
	if r.buf = r.buf[:0]; cap(r.buf) < int(size) {
		r.buf = make([]byte, 0, size)
	}
	r.buf = r.buf[:size]
	if _, err := io.ReadFull(r.in, r.buf); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return mesh.LogEntry{}, err
	}
	stamp, text, ok := bytes.Cut(r.buf, []byte(" "))
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if !ok || err != nil {
		return mesh.LogEntry{}, errLogFrame
	}
	e := mesh.LogEntry{Time: at, Stream: mesh.Stdout, Text: text}
	if head[0] == 2 {
		e.Stream = mesh.Stderr
	}
	return e, nil
}

// Close ends the reading.
func (r *entries) Close() error { return r.in.Close() }
