package peernet

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"syscall"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	tptu "github.com/libp2p/go-libp2p/p2p/net/upgrader"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"

	"peercompute/pkg/mesh"
	"peercompute/pkg/mux"
	"peercompute/pkg/socket"
)

// batchTLS is libp2p's TLS over connections that move several records at a time.
// crypto/tls writes and reads each record of at most 16 KiB with a system call
// of its own, which is most of what a bulk transfer costs.
type batchTLS struct{ *libp2ptls.Transport }

var _ sec.SecureTransport = batchTLS{}

func newBatchTLS(id protocol.ID, key crypto.PrivKey, muxers []tptu.StreamMuxer) (batchTLS, error) {
	t, err := libp2ptls.New(id, key, muxers)
	return batchTLS{t}, err
}

func (t batchTLS) SecureInbound(ctx context.Context, c net.Conn, p mesh.PeerID) (sec.SecureConn, error) {
	return t.Transport.SecureInbound(ctx, newBatch(c), p)
}

func (t batchTLS) SecureOutbound(ctx context.Context, c net.Conn, p mesh.PeerID) (sec.SecureConn, error) {
	return t.Transport.SecureOutbound(ctx, newBatch(c), p)
}

// batch is a connection whose writer can hold back what it writes and send it at
// once. Others, such as TLS alerts, may write at any time: between Hold and
// Flush their bytes join the batch, in order. Its reader gets the records of TLS
// one at a time, so that it is known what of them is still here.
type batch struct {
	net.Conn
	in   readAhead
	left int // of the record that is being read

	mu   sync.Mutex
	out  []byte
	held bool
}

var _ mux.Batcher = (*batch)(nil)

func newBatch(c net.Conn) *batch {
	c = socket.Wrap(c)
	return &batch{Conn: c, in: readAhead{from: c}}
}

// recordHeader is the length of a TLS record's header. Its last two bytes are the
// length of what follows.
const recordHeader = 5

func (b *batch) Read(p []byte) (int, error) {
	if b.left == 0 {
		if err := b.in.need(recordHeader); err != nil {
			return 0, err
		}
		b.left = recordLength(b.in.here())
	}
	if err := b.in.need(1); err != nil {
		return 0, err
	}
	n := copy(p[:min(len(p), b.left)], b.in.here())
	b.in.start += n
	b.left -= n
	return n, nil
}

func recordLength(header []byte) int {
	return recordHeader + int(binary.BigEndian.Uint16(header[recordHeader-2:]))
}

// Ready reports whether a whole record is here to be read.
func (b *batch) Ready() bool {
	here := b.in.here()
	return b.left == 0 && len(here) >= recordHeader && len(here) >= recordLength(here)
}

// readAhead reads as much as there is with each system call. Its buffer grows
// while that is more than fits.
type readAhead struct {
	from       io.Reader
	buf        []byte
	start, end int // what is here
}

const (
	leastAhead = 4 << 10 // bytes
	mostAhead  = 128 << 10
)

func (r *readAhead) here() []byte { return r.buf[r.start:r.end] }

// need waits until n bytes are here, of leastAhead at most.
func (r *readAhead) need(n int) error {
	for r.end-r.start < n {
		if size := len(r.buf); r.end == size && size < mostAhead { // the last read filled it
			grown := make([]byte, max(leastAhead, 2*size))
			r.end = copy(grown, r.here())
			r.buf, r.start = grown, 0
		} else {
			r.end = copy(r.buf, r.here())
			r.start = 0
		}
		m, err := r.from.Read(r.buf[r.end:])
		if r.end += m; m == 0 && err != nil {
			return err
		}
	}
	return nil
}

func (b *batch) Write(p []byte) (int, error) {
	b.mu.Lock()
	if b.held {
		b.out = append(b.out, p...)
		b.mu.Unlock()
		return len(p), nil
	}
	b.mu.Unlock()
	return b.Conn.Write(p)
}

// Hold keeps back what is written from now on. Only one goroutine may hold.
func (b *batch) Hold() {
	b.mu.Lock()
	b.held = true
	b.mu.Unlock()
}

// Flush writes what was kept back, and what others add meanwhile.
func (b *batch) Flush() error {
	var spare []byte
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.out) > 0 {
		out := b.out
		b.out = spare[:0]
		b.mu.Unlock()
		_, err := b.Conn.Write(out)
		b.mu.Lock()
		spare = out
		if err != nil {
			b.held = false
			return err
		}
	}
	b.held = false
	if spare != nil {
		b.out = spare[:0]
	}
	return nil
}

// SyscallConn is that of the connection below, for socket options.
func (b *batch) SyscallConn() (syscall.RawConn, error) {
	if sc, ok := b.Conn.(syscall.Conn); ok {
		return sc.SyscallConn()
	}
	return nil, syscall.EINVAL
}

// batchUnder finds the batch under a secure connection; nil if there is none.
func batchUnder(c net.Conn) *batch {
	for range 8 {
		if b, ok := c.(*batch); ok {
			return b
		}
		under, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		c = under.NetConn()
	}
	return nil
}
