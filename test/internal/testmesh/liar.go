package testmesh

import (
	"context"
	"io"
	"testing"
	"time"

	"peercompute/pkg/frame"
	"peercompute/pkg/identity"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/receipt"
	"peercompute/pkg/wire"
)

// Liar is a peer made of our own parts inside the test that others can reach. It
// signs its answers as any peer does, and says in them whatever the test wants.
type Liar struct {
	*Actor
	incarnation wire.Incarnation
	answers     map[wire.Verb]Answer
}

// Answer is what a liar says to a request: the body of its answer, and what follows
// on the same stream; nil = nothing.
type Answer func(l *Liar, o *wire.Opened) (body any, then Then)

// Then goes on with a stream until ctx ends, which it does with the stream.
type Then func(ctx context.Context, s *peernet.Stream) error

// NewLiar starts one. What is in no answer is refused.
func NewLiar(t testing.TB, answers map[wire.Verb]Answer) *Liar {
	t.Helper()
	key, err := identity.Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	n, err := peernet.New(peernet.Config{Key: key.Private, Gate: everyone{}, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	l := &Liar{Actor: &Actor{Key: key, Net: n}, incarnation: wire.Incarnation{1}, answers: answers}
	n.Handle(wire.ProtocolHello, func(_ context.Context, s *peernet.Stream) { l.end(s, l.hello(s)) })
	n.Handle(wire.ProtocolRequest, func(ctx context.Context, s *peernet.Stream) { l.end(s, l.answer(ctx, s)) })
	ctx, cancel := context.WithCancel(context.Background())
	ready, over := make(chan struct{}), make(chan error, 1)
	go func() { over <- n.Run(ctx, func() { close(ready) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-over:
		over <- nil
		t.Fatal(err)
	}
	return l
}

// Addr is where it can be dialled, ending in /p2p/ID.
func (l *Liar) Addr() string { return l.Net.Addrs()[0] }

func (l *Liar) end(s *peernet.Stream, err error) {
	if err != nil {
		s.Reset()
		return
	}
	_ = s.Close() // the other side may have hung up
}

func (l *Liar) hello(s *peernet.Stream) error {
	var nonce wire.Nonce
	if _, err := io.ReadFull(s, nonce[:]); err != nil {
		return err
	}
	data, err := wire.SealHello(l.Key.Private, wire.Hello{
		Version: wire.Version, From: l.Key.ID, To: s.Peer(), Nonce: nonce, Incarnation: l.incarnation, Time: time.Now().UnixMilli(), Challenge: []byte{1},
	})
	if err != nil {
		return err
	}
	return wire.WriteMessage(s, data)
}

func (l *Liar) answer(ctx context.Context, s *peernet.Stream) error {
	data, err := wire.ReadMessage(s, wire.MaxRequest)
	if err != nil {
		return err
	}
	o, err := wire.OpenRequest(data)
	if err != nil {
		return err
	}
	r := wire.Response{Version: wire.Version, Verb: o.Verb, From: l.Key.ID, To: o.From, Request: o.Digest, Time: time.Now().UnixMilli()}
	var then Then
	if answer := l.answers[o.Verb]; answer != nil {
		var body any
		body, then = answer(l, o)
		if r.Body, err = wire.Marshal(body); err != nil {
			return err
		}
	} else {
		r.Error = wire.NewError(mesh.Errorf(mesh.Unsupported, "not today").WithRule("request.verb"))
	}
	sealed, err := wire.SealResponse(l.Key.Private, r)
	if err != nil {
		return err
	}
	if err := wire.WriteMessage(s, sealed); err != nil || then == nil {
		return err
	}
	return then(ctx, s)
}

// Lie is what a liar says of a job that it never ran.
type Lie struct {
	Output       string
	Fuel, Memory uint64
	After        <-chan struct{} // says nothing before; nil = at once
}

// Runs are answers of a liar that takes any job, and signs a receipt that fits what it
// was sent and what it sends.
func Runs(what Lie) map[wire.Verb]Answer {
	return map[wire.Verb]Answer{
		wire.VerbPutModule: func(*Liar, *wire.Opened) (any, Then) { return wire.PutModuleReply{Have: true}, nil },
		wire.VerbRun: func(l *Liar, o *wire.Opened) (any, Then) {
			var in wire.Run
			if err := wire.DecodeBody(o.Body, &in); err != nil {
				return wire.Empty{}, nil
			}
			return wire.Accepted{Workload: mesh.NewWorkloadID(o.Digest), Spec: in.Spec}, func(ctx context.Context, s *peernet.Stream) error {
				return l.lie(ctx, s, o, in, what)
			}
		},
	}
}

func (l *Liar) lie(ctx context.Context, s *peernet.Stream, o *wire.Opened, in wire.Run, what Lie) error {
	input := receipt.NewTally()
	for more := in.Repeat; ; { // the record of the run that is to be repeated, then its input
		typ, p, err := frame.Read(s)
		if err != nil {
			return err
		}
		if typ == wire.FrameStdin {
			_, _ = input.Write(p)
		}
		if len(p) == 0 && !more {
			break
		}
		more = more && len(p) > 0
	}
	if what.After != nil {
		select {
		case <-what.After:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	module, err := wire.ParseDigest(in.Spec.Digest)
	if err != nil {
		return err
	}
	spec, err := wire.SpecDigest(in.Spec)
	if err != nil {
		return err
	}
	now := time.Now().UnixMilli()
	envelope, err := wire.SealReceipt(l.Key.Private, wire.Receipt{
		Version: wire.Version, Runner: l.Key.ID, Asker: o.From, Request: o.Digest, Job: mesh.NewWorkloadID(o.Digest), Module: module, Spec: spec, Seed: wire.Digest(in.Seed),
		Input: input.Digest(), InputSize: input.Size(), Whole: in.Whole, Repeat: in.Repeat,
		Output: receipt.DigestOf([]byte(what.Output)), OutputSize: uint64(len(what.Output)), Log: receipt.DigestOf(nil), Record: receipt.DigestOf(nil),
		Fuel: what.Fuel, Schedule: "fuel/1", PeakMemory: what.Memory, Started: now, Ended: now,
	})
	if err != nil {
		return err
	}
	exit, err := wire.Marshal(mesh.Exit{Fuel: what.Fuel, PeakMemory: int64(what.Memory)})
	if err != nil {
		return err
	}
	for _, f := range []struct {
		typ     byte
		payload []byte
	}{{wire.FrameStdout, []byte(what.Output)}, {wire.FrameReceipt, envelope}, {wire.FrameExit, exit}} {
		if err := frame.Write(s, f.typ, f.payload); err != nil {
			return err
		}
	}
	return s.CloseWrite()
}
