package docker

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

// Logs returns what the workload's last run has written to stdout and stderr, in
// order. The engine keeps the last 16 MiB.
func (d *Driver) Logs(ctx context.Context, id mesh.WorkloadID, o driver.LogOptions) (io.ReadCloser, error) {
	if _, err := mesh.ParseWorkloadID(string(id)); err != nil {
		return nil, err
	}
	tail := "all"
	if o.Tail > 0 {
		tail = strconv.Itoa(o.Tail)
	}
	in, err := d.cli.ContainerLogs(ctx, containerName(d.node, id), container.LogsOptions{
		ShowStdout: true, ShowStderr: true, Follow: o.Follow, Tail: tail,
	})
	if errdefs.IsNotFound(err) {
		return nil, mesh.Errorf(mesh.NotFound, "workload %s has no log here", id).Because(err)
	}
	if err != nil {
		return nil, d.fail(err, "read the log")
	}
	return &plain{in: in}, nil
}

// plain turns the engine's stream of frames into the bytes they carry. A frame is
// one byte for the stream (1 stdout, 2 stderr), three zero bytes, the length of
// what follows as a big-endian uint32, and so many bytes.
type plain struct {
	in   io.ReadCloser
	left uint32 // of the current frame
}

var errLogFrame = errors.New("malformed frame in the engine's log")

func (p *plain) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for p.left == 0 {
		var head [8]byte
		if _, err := io.ReadFull(p.in, head[:]); err != nil {
			return 0, err
		}
		if head[0] > 2 || head[1] != 0 || head[2] != 0 || head[3] != 0 {
			return 0, errLogFrame
		}
		p.left = binary.BigEndian.Uint32(head[4:])
	}
	if uint64(len(b)) > uint64(p.left) {
		b = b[:p.left]
	}
	n, err := p.in.Read(b)
	p.left -= uint32(n)
	if n > 0 && err != nil {
		err = nil // it comes again
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (p *plain) Close() error { return p.in.Close() }
