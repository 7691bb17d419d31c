package node

import (
	"context"
	"sync"

	"peercompute/pkg/mesh"
	"peercompute/pkg/trust"
)

// This file bounds what streams into running workloads are open, and ends them at
// once when what allowed them is gone: the trust in who asked, the right that was
// needed, or the run itself.

// How many may be open at once. The streams of requests have a bound of their own,
// which these must not use up.
const (
	maxSessions     = 512
	maxPeerSessions = 128
)

// session is one stream into a workload.
type session struct {
	who      mesh.PeerID
	workload mesh.WorkloadID
	need     trust.Allow // besides being the owner; 0 = nothing
	cancel   context.CancelCauseFunc
}

type sessions struct {
	mu   sync.Mutex
	open map[*session]struct{}
	of   map[mesh.PeerID]int
}

func (s *sessions) add(x *session) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) >= maxSessions || s.of[x.who] >= maxPeerSessions {
		return mesh.Errorf(mesh.Overloaded, "%d streams into workloads are open already", s.of[x.who]).WithRule("host.sessions").
			WithHint("end some of them, or try again later")
	}
	if s.open == nil {
		s.open, s.of = map[*session]struct{}{}, map[mesh.PeerID]int{}
	}
	s.open[x] = struct{}{}
	s.of[x.who]++
	return nil
}

func (s *sessions) drop(x *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.open[x]; !ok {
		return
	}
	delete(s.open, x)
	if s.of[x.who]--; s.of[x.who] == 0 {
		delete(s.of, x.who)
	}
}

// end cuts those that which picks, and gives why as the reason. It does not wait.
func (s *sessions) end(why error, which func(*session) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for x := range s.open {
		if which(x) {
			x.cancel(why)
		}
	}
}

// enter begins a session of who with a running workload. The context that it returns
// ends with ctx and when the session may not go on; leave must be called.
func (n *Node) enter(ctx context.Context, who mesh.PeerID, id mesh.WorkloadID, need trust.Allow) (context.Context, func(), error) {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &session{who: who, workload: id, need: need, cancel: cancel}
	if err := n.sessions.add(s); err != nil {
		cancel(err)
		return nil, nil, err
	}
	leave := func() {
		n.sessions.drop(s)
		cancel(context.Canceled)
	}
	// Asked once it is known, so that a change in between still finds it.
	if err := n.maySession(s); err != nil {
		leave()
		return nil, nil, err
	}
	return ctx, leave, nil
}

func (n *Node) maySession(s *session) error {
	if err := n.stillTrusted(s); err != nil {
		return err
	}
	if _, err := n.record(s.who, s.workload); err != nil {
		return err
	}
	_, err := n.sup.Task(s.workload)
	return err
}

// stillTrusted says why a session may not go on as far as trust is concerned. The
// local person needs no grant.
func (n *Node) stillTrusted(s *session) error {
	if s.who == n.m.Key.ID {
		return nil
	}
	g, ok := n.m.Trust.Get(s.who)
	switch {
	case !ok:
		return mesh.Errorf(mesh.Untrusted, "you are not on the trust list here any more").WithRule("trust")
	case s.need != 0 && !g.Allow.Has(s.need):
		right := s.need.Names()[0]
		return mesh.Errorf(mesh.Denied, "you may not %s here", right).WithRule("grant."+right).
			WithHint("ask its owner for: peerctl peers allow %s --allow deploy,%s", s.who, right)
	}
	return nil
}

// endUntrusted cuts the sessions of those whom the trust list does not allow them any more.
func (n *Node) endUntrusted() {
	n.sessions.mu.Lock()
	defer n.sessions.mu.Unlock()
	for s := range n.sessions.open {
		if err := n.stillTrusted(s); err != nil {
			s.cancel(err)
		}
	}
}

// notRunning is why a session with a workload in this state ends.
func notRunning(st mesh.Status) error {
	return mesh.Errorf(mesh.Unavailable, "the workload is %s", st.State)
}

// ended is why a session ended, if it was cut; err otherwise.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
