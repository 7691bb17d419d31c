package node

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/frame"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/request"
	"peercompute/pkg/wire"
)

// sampleAtOnce bounds the workloads that are measured together.
const sampleAtOnce = 8

// sample measures who's workloads that run: those of ids, or all.
func (n *Node) sample(ctx context.Context, who mesh.PeerID, ids []mesh.WorkloadID) (wire.StatsReply, error) {
	views, err := n.list(who)
	if err != nil {
		return wire.StatsReply{}, err
	}
	out := wire.StatsReply{Time: n.m.Now().UnixNano(), Workloads: []wire.WorkloadStats{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, sampleAtOnce)
	for _, v := range views {
		w := v.Workload
		if len(ids) > 0 && !slices.Contains(ids, w.ID) {
			continue
		}
		t, err := n.sup.Task(w.ID)
		if err != nil {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ask, cancel := context.WithTimeout(ctx, statsTime)
			defer cancel()
			st, err := t.Stats(ask)
			if err != nil {
				return // it has just ended, or its runtime does not answer
			}
			n.measureVolumes(ask, w, &st)
			mu.Lock()
			defer mu.Unlock()
			if len(out.Workloads) < wire.MaxStats {
				out.Workloads = append(out.Workloads, wire.WorkloadStats{
					Workload: w.ID, Name: w.Spec.Name, Runtime: w.Spec.Runtime, Limits: w.Spec.Resources, Stats: st,
				})
			}
		})
	}
	wg.Wait()
	slices.SortFunc(out.Workloads, func(a, b wire.WorkloadStats) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(string(a.Workload), string(b.Workload)))
	})
	return out, nil
}

func (n *Node) onStats(ctx context.Context, c *request.Call) (request.Reply, error) {
	var in wire.Stats
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return request.Reply{}, err
	}
	every := time.Duration(in.Every)
	if len(in.Workloads) > wire.MaxStats || every != 0 && every < wire.MinStatsEvery {
		return request.Reply{}, mesh.Errorf(mesh.Invalid, "at most %d workloads, and samples at least %s apart", wire.MaxStats, wire.MinStatsEvery)
	}
	for _, id := range in.Workloads {
		if _, err := n.record(c.From, id); err != nil {
			return request.Reply{}, err
		}
	}
	first, err := n.sample(ctx, c.From, in.Workloads)
	if err != nil || every == 0 {
		return request.Reply{Body: first}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	s := &session{who: c.From, cancel: cancel}
	leave := func() {
		n.sessions.drop(s)
		cancel(context.Canceled)
	}
	if err := n.sessions.add(s); err != nil {
		cancel(err)
		return request.Reply{}, err
	}
	if err := n.stillTrusted(s); err != nil {
		leave()
		return request.Reply{}, err
	}
	return request.Reply{Body: first, Cancel: leave, Stream: func(_ context.Context, st *peernet.Stream) error {
		defer leave()
		defer context.AfterFunc(ctx, st.Reset)()
		go func() {
			_, _ = io.Copy(io.Discard, st)
			cancel(context.Canceled)
		}()
		return n.sampleEach(ctx, every, func() error {
			next, err := n.sample(ctx, c.From, in.Workloads)
			if err != nil {
				return err
			}
			b, err := wire.Marshal(next)
			if err != nil {
				return err
			}
			return frame.Write(deadlineWriter{st}, wire.FrameStats, b)
		})
	}}, nil
}

// sampleEach calls do again and again until it fails or ctx ends.
func (n *Node) sampleEach(ctx context.Context, every time.Duration, do func() error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := do(); err != nil {
			return err
		}
	}
}

// gauge is the latest sample of each place that is watched.
type gauge struct {
	mu      sync.Mutex
	samples map[mesh.PeerID]wire.StatsReply
	failed  map[mesh.PeerID]error
}

func (g *gauge) set(p mesh.PeerID, r wire.StatsReply, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		delete(g.samples, p)
		g.failed[p] = err
		return
	}
	delete(g.failed, p)
	g.samples[p] = r
}

// Stats measures workloads wherever they run.
func (a *api) Stats(ctx context.Context, q control.StatsQuery, emit func(control.StatsSample) error) error {
	places, err := a.statsPlaces(ctx, q)
	if err != nil {
		return err
	}
	self := a.n.m.Key.ID
	g := &gauge{samples: map[mesh.PeerID]wire.StatsReply{}, failed: map[mesh.PeerID]error{}}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var first sync.WaitGroup
	for p, ids := range places {
		if p == self {
			continue
		}
		first.Add(1)
		wg.Go(func() { a.watchStats(ctx, p, ids, q.Every, g, sync.OnceFunc(first.Done)) })
	}
	first.Wait()
	show := func() error {
		if ids, here := places[self]; here {
			r, err := a.n.sample(ctx, self, ids)
			g.set(self, r, err)
		}
		return emit(a.gauged(g))
	}
	if err := show(); err != nil || q.Every == 0 {
		return err
	}
	return a.n.sampleEach(ctx, q.Every, show)
}

// statsPlaces is where to ask, and for which workloads; none = all there.
func (a *api) statsPlaces(ctx context.Context, q control.StatsQuery) (map[mesh.PeerID][]mesh.WorkloadID, error) {
	places := map[mesh.PeerID][]mesh.WorkloadID{}
	for _, ref := range q.Refs {
		d, err := a.find(ctx, ref, q.Peer)
		if err != nil {
			return nil, err
		}
		if places[d.Peer] = append(places[d.Peer], d.View.Workload.ID); len(places[d.Peer]) > wire.MaxStats {
			return nil, mesh.Errorf(mesh.Invalid, "at most %d workloads of a peer at once", wire.MaxStats)
		}
	}
	if len(q.Refs) > 0 {
		return places, nil
	}
	if q.Peer != "" {
		p, err := a.where(q.Peer)
		places[p] = nil
		return places, err
	}
	places[a.n.m.Key.ID] = nil
	known, err := a.n.remembered()
	for _, d := range known {
		if a.n.m.Trust.Name(d.Peer) != d.Peer.String() { // not removed here since
			places[d.Peer] = nil
		}
	}
	return places, err
}

// statsAgain is how long a peer that did not answer is left alone.
const statsAgain = 10 * time.Second

// watchStats keeps the gauge of one peer, and calls first once it was read or failed.
func (a *api) watchStats(ctx context.Context, p mesh.PeerID, ids []mesh.WorkloadID, every time.Duration, g *gauge, first func()) {
	for {
		err := a.readStats(ctx, p, ids, every, func(r wire.StatsReply) {
			g.set(p, r, nil)
			first()
		})
		if err == nil && every == 0 {
			return
		}
		g.set(p, wire.StatsReply{}, cmp.Or(err, io.ErrUnexpectedEOF))
		first()
		if every == 0 || !sleepFor(ctx, statsAgain) {
			return
		}
	}
}

func sleepFor(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (a *api) readStats(ctx context.Context, p mesh.PeerID, ids []mesh.WorkloadID, every time.Duration, each func(wire.StatsReply)) error {
	var r wire.StatsReply
	ask, cancel := context.WithTimeout(ctx, listTimeout)
	s, err := a.n.m.Client.Open(ask, p, wire.VerbStats, wire.Stats{Workloads: ids, Every: int64(every)}, &r)
	cancel()
	if err != nil {
		return a.n.elsewhere(p, err)
	}
	defer s.Reset()
	defer context.AfterFunc(ctx, s.Reset)()
	each(r)
	if every == 0 {
		return nil
	}
	in := bufio.NewReader(s)
	for {
		typ, payload, err := frame.Read(in)
		if err != nil {
			return a.n.elsewhere(p, mesh.Errorf(mesh.Unavailable, "the connection was lost").Because(err))
		}
		if typ != wire.FrameStats {
			continue
		}
		var next wire.StatsReply
		if err := wire.DecodeBody(payload, &next); err != nil {
			return err
		}
		each(next)
	}
}

func (a *api) gauged(g *gauge) control.StatsSample {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := control.StatsSample{Workloads: []control.Stats{}}
	for p, r := range g.samples {
		for _, w := range r.Workloads[:min(len(r.Workloads), wire.MaxStats)] {
			out.Workloads = append(out.Workloads, control.Stats{
				ID: w.Workload, Name: w.Name, Peer: a.n.m.Trust.Name(p), Kind: w.Runtime,
				Time: time.Unix(0, r.Time).UTC(), Limits: w.Limits, Used: w.Stats,
			})
		}
	}
	for p, err := range g.failed {
		if errors.Is(err, context.Canceled) {
			continue
		}
		if out.Missing == nil {
			out.Missing = map[string]string{}
		}
		out.Missing[a.n.m.Trust.Name(p)] = mesh.AsError(err).Msg
	}
	slices.SortFunc(out.Workloads, func(x, y control.Stats) int {
		return cmp.Or(strings.Compare(x.Peer, y.Peer), strings.Compare(x.Name, y.Name), strings.Compare(string(x.ID), string(y.ID)))
	})
	return out
}
