package security

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/quic-go/quic-go"

	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/wire"
)

// caller is somebody with a key who dials a node, made of the least that does: the
// TLS handshake, and a first stream in the same breath. Ten thousand are soon made.
type caller struct {
	identity *libp2ptls.Identity
	id       mesh.PeerID
}

func newCaller() (c caller, err error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return c, err
	}
	if c.id, err = peer.IDFromPrivateKey(key); err != nil {
		return c, err
	}
	c.identity, err = libp2ptls.NewIdentity(key)
	return c, err
}

// target of a call: an address of a node.
type address struct {
	id   mesh.PeerID
	net  net.Addr
	quic bool
}

func addressOf(full string) (address, error) {
	text, id, err := peernet.ParseAddr(full)
	if err != nil {
		return address{}, err
	}
	a := ma.StringCast(text)
	_, isQUIC := ma.SplitFunc(a, func(c ma.Component) bool { return c.Protocol().Code == ma.P_QUIC_V1 })
	if isQUIC != nil {
		a, _ = ma.SplitLast(a)
	}
	n, err := manet.ToNetAddr(a)
	return address{id, n, isQUIC != nil}, err
}

// greeting opens a stream and asks for a hello, all before anything is answered.
func greeting() []byte {
	var b []byte
	for _, s := range []string{"/multistream/1.0.0\n", wire.ProtocolHello + "\n"} {
		b = append(append(b, byte(len(s))), s...)
	}
	nonce := wire.NewNonce()
	return append(b, nonce[:]...)
}

// answered is how long an answer is at least: the echo of the greeting and a signed hello.
const answered = 200

// shook says that the handshake went through, so that what came after was refused.
type outcome struct {
	shook bool
	got   int // bytes that the node sent after it
}

// call dials, greets, and reads until something like an answer or the end.
func (c caller) call(ctx context.Context, to address, udp *quic.Transport, dialer *net.Dialer) (o outcome, err error) {
	config, _ := c.identity.ConfigForPeer(to.id)
	if to.quic {
		return c.callQUIC(ctx, to, udp, config)
	}
	if dialer == nil {
		dialer = &net.Dialer{}
	}
	conn, err := dialer.DialContext(ctx, "tcp", to.net.String())
	if err != nil {
		return o, err
	}
	defer conn.Close()
	if end, ok := ctx.Deadline(); ok {
		conn.SetDeadline(end)
	}
	hello := []byte("\x13/multistream/1.0.0\n\x0b/tls/1.0.0\n")
	if _, err := conn.Write(hello); err != nil {
		return o, err
	}
	if _, err := io.ReadFull(conn, make([]byte, len(hello))); err != nil {
		return o, err
	}
	config.NextProtos = append([]string{"/yamux/1.0.0"}, config.NextProtos...)
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return o, err
	}
	o.shook = true
	g := greeting()
	frame := []byte{0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, byte(len(g))} // yamux: data, SYN, stream 1
	if _, err := secure.Write(append(frame, g...)); err != nil {
		return o, err
	}
	o.got, err = readAnswer(secure)
	return o, err
}

func (c caller) callQUIC(ctx context.Context, to address, udp *quic.Transport, config *tls.Config) (o outcome, err error) {
	conn, err := udp.Dial(ctx, to.net, config, &quic.Config{Versions: []quic.Version{quic.Version1}, HandshakeIdleTimeout: 10 * time.Second, EnableStreamResetPartialDelivery: true, EnableDatagrams: true})
	if err != nil {
		return o, err
	}
	defer conn.CloseWithError(0, "")
	o.shook = true
	st, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return o, err
	}
	if _, err := st.Write(greeting()); err != nil {
		return o, err
	}
	if end, ok := ctx.Deadline(); ok {
		st.SetDeadline(end)
	}
	o.got, err = readAnswer(st)
	return o, err
}

// readAnswer counts what comes, until it is enough for an answer or the end.
func readAnswer(r io.Reader) (int, error) {
	var b bytes.Buffer
	_, err := io.CopyN(&b, r, answered)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b.Len(), err
}
