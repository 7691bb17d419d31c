// Package request carries signed requests between nodes: the server that admits
// each at most once and hands it to the handler of its verb, and the client that
// signs and sends them. What a verb means is decided by whoever registers it.
package request

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"peercompute/pkg/admission"
	"peercompute/pkg/audit"
	"peercompute/pkg/event"
	"peercompute/pkg/identity"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/store"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

const (
	readTimeout  = 15 * time.Second // for a whole envelope
	writeTimeout = 15 * time.Second
	maxAtOnce    = 1024 // requests handled at the same time
	maxPeer      = 512  // of one peer, so that there is room for others
)

// Call is an admitted request, as its handler sees it.
type Call struct {
	From   mesh.PeerID // the sender as it is on the trust list now
	Grant  trust.Grant
	Digest wire.Digest
	Body   []byte // decode with wire.DecodeBody
}

// Reply is what a handler wants done.
type Reply struct {
	Body   any                                                // of the answer
	Commit func(*store.Tx) error                              // the effect; committed together with the answer
	After  func()                                             // runs once Commit is on disk, before the answer is sent
	Cancel func()                                             // undoes what Commit holds in memory; runs if Stream will not be called
	Stream func(ctx context.Context, s *peernet.Stream) error // what follows the answer on the same stream
	// Settled says that the effect is on disk already, and may have ended the
	// sender's trust.
	Settled bool
}

// Handler acts on one verb. It must not have effects itself: they belong into
// Reply.Commit, so that they happen exactly if the answer is recorded.
type Handler func(ctx context.Context, c *Call) (Reply, error)

// Config is what NewServer needs.
type Config struct {
	Key      *identity.Key
	Net      *peernet.Net
	Gate     *admission.Gate
	Store    *store.Store
	Now      func() time.Time
	Log      *slog.Logger
	Handlers map[wire.Verb]Handler
	Audit    *audit.Log
	Events   *event.Bus // may be nil
}

// Server answers hellos and requests.
type Server struct {
	cfg Config

	pace pace

	mu  sync.Mutex
	all int                 // requests that are handled now
	of  map[mesh.PeerID]int // by peer
}

// NewServer registers the protocols on the network.
func NewServer(cfg Config) *Server {
	s := &Server{cfg: cfg, of: map[mesh.PeerID]int{}}
	cfg.Net.Handle(wire.ProtocolHello, s.hello)
	cfg.Net.Handle(wire.ProtocolRequest, s.request)
	return s
}

func (s *Server) hello(_ context.Context, st *peernet.Stream) {
	st.SetDeadline(time.Now().Add(readTimeout))
	var nonce wire.Nonce
	if _, err := io.ReadFull(st, nonce[:]); err != nil {
		st.Reset()
		return
	}
	data, err := wire.SealHello(s.cfg.Key.Private, wire.Hello{
		Version: wire.Version, From: s.cfg.Key.ID, To: st.Peer(), Nonce: nonce,
		Incarnation: s.cfg.Store.Incarnation(), Time: s.cfg.Gate.Now().UnixMilli(), Challenge: s.cfg.Gate.Challenge(st.Peer()),
	})
	if err == nil {
		err = wire.WriteMessage(st, data)
	}
	if err != nil {
		st.Reset()
	}
}

func (s *Server) request(ctx context.Context, st *peernet.Stream) {
	if !s.enter(st.Peer()) {
		st.Reset() // the client sees a lost stream and may try again
		return
	}
	defer s.leave(st.Peer())
	if !s.pace.await(ctx, st.Peer()) {
		st.Reset()
		return
	}
	st.SetReadDeadline(time.Now().Add(readTimeout))
	data, err := wire.ReadMessage(st, wire.MaxRequest)
	if err != nil {
		st.Reset()
		return
	}
	st.SetReadDeadline(time.Time{})
	if err := s.serve(ctx, st, data); err != nil {
		s.cfg.Log.Debug("request stream ended", "peer", st.Peer(), "err", err)
		st.Reset()
	}
}

func (s *Server) enter(p mesh.PeerID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= maxAtOnce || s.of[p] >= maxPeer {
		return false
	}
	s.all++
	s.of[p]++
	return true
}

func (s *Server) leave(p mesh.PeerID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.of[p]--; s.of[p] == 0 {
		delete(s.of, p)
	}
}

func (s *Server) serve(ctx context.Context, st *peernet.Stream, data []byte) error {
	o, err := wire.OpenRequest(data)
	if err != nil {
		// Not even well formed: there is no request to answer in its name.
		s.pace.refused(st.Peer(), time.Now())
		s.cfg.Audit.Note(s.refused(st.Peer(), "unreadable", err))
		return s.answerUnsigned(st, data, err)
	}
	ticket, prior, err := s.cfg.Gate.Admit(ctx, st.Peer(), o)
	if err != nil {
		if tooOften(err) {
			s.pace.refused(st.Peer(), time.Now())
		}
		s.cfg.Audit.Note(s.refused(st.Peer(), o.Verb.String(), err))
		answer, sealErr := s.seal(o, st.Peer(), nil, err) // who sent it need not be who signed it
		if sealErr != nil {
			return sealErr
		}
		return send(st, answer)
	}
	if prior != nil {
		return send(st, prior)
	}
	defer ticket.Release()
	return s.act(ctx, st, ticket)
}

func (s *Server) act(ctx context.Context, st *peernet.Stream, t *admission.Ticket) error {
	reply, herr := s.handle(ctx, t)
	if herr == nil {
		answer, err := s.seal(t.Opened, t.From, reply.Body, nil)
		if err != nil {
			if reply.Cancel != nil {
				reply.Cancel()
			}
			return err
		}
		keep := answer
		if reply.Stream != nil {
			keep = nil // a stream cannot be given twice
		}
		finish := t.Finish
		if reply.Settled {
			finish = t.Refuse // which asks for no trust
		}
		herr = finish(ctx, keep, s.recorded(t, reply.Commit))
		if herr == nil {
			if reply.After != nil {
				reply.After()
			}
			if reply.Commit != nil {
				s.cfg.Events.Publish(event.Event{Type: event.Admission, Name: "accepted", Peer: t.From, Subject: t.Verb.String()})
			}
			if err := send(st, answer); err != nil {
				if reply.Cancel != nil {
					reply.Cancel()
				}
				return err
			}
			if reply.Stream == nil {
				return nil
			}
			return reply.Stream(ctx, st)
		}
		if reply.Cancel != nil {
			reply.Cancel()
		}
	}
	entry := s.refused(t.From, t.Verb.String(), herr)
	answer, err := s.seal(t.Opened, t.From, nil, herr)
	if err != nil {
		return err
	}
	// On a full disk a refusal cannot be recorded. It may be told all the same: nothing
	// was done, and that is what a repetition will hear.
	if err := t.Refuse(ctx, answer, s.note(entry)); err != nil && mesh.AsError(err).Rule != mesh.RuleDisk {
		return fmt.Errorf("cannot record a refusal: %w", err)
	}
	return send(st, answer)
}

func (s *Server) handle(ctx context.Context, t *admission.Ticket) (Reply, error) {
	h := s.cfg.Handlers[t.Verb]
	if h == nil {
		return Reply{}, mesh.Errorf(mesh.Unsupported, "this node does not take %s requests", t.Verb).WithRule("request.verb")
	}
	// A key that was replaced still counts for a while: it acts for its successor.
	return h(ctx, &Call{From: t.Grant.Peer, Grant: t.Grant, Digest: t.Digest, Body: t.Body})
}

func (s *Server) seal(o *wire.Opened, to mesh.PeerID, body any, failure error) ([]byte, error) {
	r := wire.Response{
		Version: wire.Version, Verb: o.Verb, From: s.cfg.Key.ID, To: to, Request: o.Digest,
		Time: s.cfg.Gate.Now().UnixMilli(),
	}
	if failure != nil {
		r.Error = wire.NewError(failure)
	} else if body != nil {
		b, err := wire.Marshal(body)
		if err != nil {
			return nil, err
		}
		r.Body = b
	}
	return wire.SealResponse(s.cfg.Key.Private, r)
}

// answerUnsigned tells the sender why its bytes were not taken as a request. The
// answer is signed and bound to those bytes, but carries verb 0.
func (s *Server) answerUnsigned(st *peernet.Stream, data []byte, why error) error {
	o := &wire.Opened{Digest: digestOf(data)}
	answer, err := s.seal(o, st.Peer(), nil, why)
	if err != nil {
		return err
	}
	return send(st, answer)
}

func send(st *peernet.Stream, data []byte) error {
	st.SetWriteDeadline(time.Now().Add(writeTimeout))
	defer st.SetWriteDeadline(time.Time{})
	return wire.WriteMessage(st, data)
}
