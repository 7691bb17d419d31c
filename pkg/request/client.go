package request

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"sync"
	"time"

	"peercompute/pkg/identity"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/wire"
)

// Client signs requests with the node key and sends them.
type Client struct {
	key *identity.Key
	net *peernet.Net
	now func() time.Time

	mu    sync.Mutex
	known map[mesh.PeerID]wire.Incarnation
}

// NewClient prepares a client.
func NewClient(key *identity.Key, net *peernet.Net, now func() time.Time) *Client {
	return &Client{key: key, net: net, now: now, known: map[mesh.PeerID]wire.Incarnation{}}
}

// answerTimeout bounds the wait for an answer, when ctx has no earlier deadline.
const answerTimeout = 30 * time.Second

// Refused is an error that another peer gave as its signed answer.
type Refused struct {
	Peer  mesh.PeerID
	Cause *mesh.Error
}

func (r *Refused) Error() string { return r.Cause.Error() }

// Unwrap lets errors.As find the mesh.Error.
func (r *Refused) Unwrap() error { return r.Cause }

// Do sends a request and decodes the answer's body into out, if it is not nil.
func (c *Client) Do(ctx context.Context, p mesh.PeerID, verb wire.Verb, body, out any) error {
	st, err := c.Open(ctx, p, verb, body, out)
	if err != nil {
		return err
	}
	_ = st.Close() // the answer is here and verified; the peer may have closed its end before
	return nil
}

// Open sends a request and returns the stream on which more follows the answer.
func (c *Client) Open(ctx context.Context, p mesh.PeerID, verb wire.Verb, body, out any) (*peernet.Stream, error) {
	st, _, err := c.OpenSigned(ctx, p, verb, body, out)
	return st, err
}

// OpenSigned is Open; it returns the digest of the request's envelope too, by which
// what the peer makes of it is known.
func (c *Client) OpenSigned(ctx context.Context, p mesh.PeerID, verb wire.Verb, body, out any) (*peernet.Stream, wire.Digest, error) {
	raw, err := wire.Marshal(body)
	if err != nil {
		return nil, wire.Digest{}, err
	}
	inc, err := c.incarnation(ctx, p)
	if err != nil {
		return nil, wire.Digest{}, err
	}
	st, digest, err := c.attempt(ctx, p, verb, raw, inc, nil, out)
	// A peer that lost its state has a new incarnation, and one whose clock
	// disagrees takes its own challenge instead of our time: ask and try once more.
	var refused *Refused
	if errors.As(err, &refused) && (refused.Cause.Rule == "request.incarnation" || refused.Cause.Rule == "time.window") {
		hello, herr := c.hello(ctx, p)
		if herr != nil {
			return nil, digest, err
		}
		return c.attempt(ctx, p, verb, raw, hello.Incarnation, hello.Challenge, out)
	}
	return st, digest, err
}

func (c *Client) attempt(ctx context.Context, p mesh.PeerID, verb wire.Verb, body []byte, inc wire.Incarnation, challenge []byte, out any) (*peernet.Stream, wire.Digest, error) {
	now := c.now()
	data, err := wire.SealRequest(c.key.Private, wire.Request{
		Version: wire.Version, Verb: verb, From: c.key.ID, To: p, Incarnation: inc, Nonce: wire.NewNonce(),
		Issued: now.UnixMilli(), Expires: now.Add(wire.Lifetime).UnixMilli(), Challenge: challenge, Body: body,
	})
	if err != nil {
		return nil, wire.Digest{}, err
	}
	st, err := c.Send(ctx, p, verb, data, out)
	if errors.Is(err, errLost) && ctx.Err() == nil {
		// The peer may have restarted, of which a QUIC connection learns only by
		// using it. The same bytes are carried out once at most.
		st, err = c.Send(ctx, p, verb, data, out)
	}
	return st, digestOf(data), err
}

// Send sends an envelope that is sealed already; a second Send of the same bytes
// is a repetition and gets the first answer.
func (c *Client) Send(ctx context.Context, p mesh.PeerID, verb wire.Verb, data []byte, out any) (*peernet.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	st, err := c.net.Open(ctx, p, wire.ProtocolRequest)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, st.Reset)
	defer stop()
	if err := c.exchange(ctx, st, p, verb, data, out); err != nil {
		st.Reset()
		return nil, err
	}
	return st, nil
}

// exchange sends the envelope and verifies the answer.
func (c *Client) exchange(ctx context.Context, st *peernet.Stream, p mesh.PeerID, verb wire.Verb, data []byte, out any) error {
	if err := wire.WriteMessage(st, data); err != nil {
		return noAnswer(ctx, err)
	}
	answer, err := wire.ReadMessage(st, wire.MaxResponse)
	if err != nil {
		return noAnswer(ctx, err)
	}
	resp, err := wire.OpenResponse(answer, p, c.key.ID, verb, digestOf(data))
	if err != nil {
		return err
	}
	if resp.Error != nil {
		return &Refused{Peer: p, Cause: resp.Error.Err()}
	}
	if out == nil {
		return nil
	}
	return wire.DecodeBody(resp.Body, out)
}

func noAnswer(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return mesh.Errorf(mesh.Timeout, "the peer did not answer in time").Because(err)
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return mesh.Errorf(mesh.Unavailable, "the peer ended the connection without an answer").
		WithHint("does it trust this machine? its owner can look with: peerctl peers ls").Because(errors.Join(errLost, err))
}

// errLost marks a stream that broke off before the answer had come.
var errLost = errors.New("connection lost")

func (c *Client) incarnation(ctx context.Context, p mesh.PeerID) (wire.Incarnation, error) {
	c.mu.Lock()
	inc, ok := c.known[p]
	c.mu.Unlock()
	if ok {
		return inc, nil
	}
	h, err := c.hello(ctx, p)
	if errors.Is(err, errLost) && ctx.Err() == nil {
		h, err = c.hello(ctx, p)
	}
	if err != nil {
		return inc, err
	}
	return h.Incarnation, nil
}

func (c *Client) hello(ctx context.Context, p mesh.PeerID) (*wire.Hello, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	st, err := c.net.Open(ctx, p, wire.ProtocolHello)
	if err != nil {
		return nil, err
	}
	defer st.Close()
	defer context.AfterFunc(ctx, st.Reset)()
	nonce := wire.NewNonce()
	if _, err := st.Write(nonce[:]); err != nil {
		return nil, noAnswer(ctx, err)
	}
	data, err := wire.ReadMessage(st, wire.MaxHello)
	if err != nil {
		return nil, noAnswer(ctx, err)
	}
	h, err := wire.OpenHello(data, p, c.key.ID, nonce)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.known[p] = h.Incarnation
	c.mu.Unlock()
	return h, nil
}

// Forget drops what is remembered about a peer.
func (c *Client) Forget(p mesh.PeerID) {
	c.mu.Lock()
	delete(c.known, p)
	c.mu.Unlock()
}

// Ping measures one round trip to p.
func (c *Client) Ping(ctx context.Context, p mesh.PeerID) (time.Duration, error) {
	start := time.Now()
	_, err := c.hello(ctx, p)
	return time.Since(start), err
}

func digestOf(data []byte) wire.Digest { return sha256.Sum256(data) }

var _ io.ReadWriteCloser = (*peernet.Stream)(nil)
