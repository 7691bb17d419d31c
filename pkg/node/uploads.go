package node

import (
	"bufio"
	"context"
	"io"
	"sync"

	"peercompute/pkg/frame"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/request"
	"peercompute/pkg/wire"
)

// maxUploading bounds what one peer's modules and inputs may come to that are on their way
// here, in bytes: they lie on the disk already, and count nowhere else yet.
const maxUploading = 256 << 20

// uploads is how many bytes each peer is sending.
type uploads struct {
	mu sync.Mutex
	of map[mesh.PeerID]int64
}

// take begins an upload of so many bytes; release must be called at its end.
func (u *uploads) take(p mesh.PeerID, size int64) (release func(), err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.of[p]+size > maxUploading {
		return nil, mesh.Errorf(mesh.Overloaded, "%d MiB of yours are on their way here already", u.of[p]>>20).WithRule("host.uploads").
			WithHint("try again once they are there")
	}
	if u.of == nil {
		u.of = map[mesh.PeerID]int64{}
	}
	u.of[p] += size
	return sync.OnceFunc(func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.of[p] -= size; u.of[p] == 0 {
			delete(u.of, p)
		}
	}), nil
}

// receive answers p with body, and gives put the size bytes that follow on the stream.
func (u *uploads) receive(p mesh.PeerID, size int64, body any, put func(context.Context, io.Reader) error) (request.Reply, error) {
	release, err := u.take(p, size)
	if err != nil {
		return request.Reply{}, err
	}
	return request.Reply{Body: body, Cancel: release, Stream: func(ctx context.Context, s *peernet.Stream) error {
		defer release()
		if err := put(ctx, &exactly{r: bufio.NewReaderSize(deadlineReader{s}, 64<<10), left: size}); err != nil {
			return endWithError(s, err)
		}
		return frame.Write(deadlineWriter{s}, wire.FrameEnd, nil)
	}}, nil
}
