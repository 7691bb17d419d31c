package peernet

import (
	"bufio"
	"context"
	"net"
	"sync"
	"syscall"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	tptu "github.com/libp2p/go-libp2p/p2p/net/upgrader"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"

	"peercompute/pkg/mesh"
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
// once. Others, such as TLS alerts, may write at any time: between hold and
// flush their bytes join the batch, in order.
type batch struct {
	net.Conn
	in *bufio.Reader

	mu   sync.Mutex
	out  []byte
	held bool
}

const readAhead = 32 << 10 // bytes

func newBatch(c net.Conn) *batch {
	return &batch{Conn: c, in: bufio.NewReaderSize(c, readAhead)}
}

func (b *batch) Read(p []byte) (int, error) { return b.in.Read(p) }

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

// hold keeps back what is written from now on. Only one goroutine may hold.
func (b *batch) hold() {
	b.mu.Lock()
	b.held = true
	b.mu.Unlock()
}

// flush writes what was kept back, and what others add meanwhile.
func (b *batch) flush() error {
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
