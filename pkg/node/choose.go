package node

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/request"
	"peercompute/pkg/trust"
)

// This file chooses among peers for work that may run anywhere.

const (
	pingLimit = 3 * time.Second        // for the first answer
	pingMore  = 200 * time.Millisecond // for others, after the first
)

// hosts are the trusted peers that may run work, the nearest first: by the time of
// one round trip, just measured; then those that did not answer.
func (n *Node) hosts(ctx context.Context) []trust.Grant {
	var out []trust.Grant
	for _, g := range n.m.Trust.Live() {
		if !g.Allow.Has(trust.Route) { // gateways run no workloads
			out = append(out, g)
		}
	}
	took := n.pingAll(ctx, out)
	slices.SortStableFunc(out, func(x, y trust.Grant) int {
		a, aok := took[x.Peer]
		b, bok := took[y.Peer]
		if aok != bok {
			if aok {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a, b), strings.Compare(x.Name, y.Name))
	})
	return out
}

// pingAll measures one round trip to each, and waits for slow ones only as long as
// none has answered.
func (n *Node) pingAll(ctx context.Context, peers []trust.Grant) map[mesh.PeerID]time.Duration {
	ctx, cancel := context.WithTimeout(ctx, pingLimit)
	defer cancel()
	var mu sync.Mutex
	took := map[mesh.PeerID]time.Duration{}
	var wg sync.WaitGroup
	for _, g := range peers {
		wg.Go(func() {
			d, err := n.m.Client.Ping(ctx, g.Peer)
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if len(took) == 0 {
				time.AfterFunc(pingMore, cancel)
			}
			took[g.Peer] = d
		})
	}
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	return took
}

// runAny runs a job on the nearest peer that takes it.
func (n *Node) runAny(ctx context.Context, job ask, begin streams) (result, error) {
	var got result
	err := n.tryHosts(ctx, func(g trust.Grant) (begun bool, err error) {
		got, err = n.runOn(ctx, g.Peer, job, func(p mesh.PeerID, id mesh.WorkloadID) (io.Reader, io.Writer, io.Writer, error) {
			begun = true
			return begin(p, id)
		})
		return begun, err
	})
	return got, err
}

// tryHosts tries peers until one takes the work, the nearest first. try reports
// whether the peer had begun, after which no other is tried.
func (n *Node) tryHosts(ctx context.Context, try func(trust.Grant) (begun bool, err error)) error {
	hosts := n.hosts(ctx)
	if len(hosts) == 0 {
		return mesh.Errorf(mesh.Invalid, "no peer is known that could run it").
			WithHint("trust one with: peerctl peers join TOKEN; or run it here with --peer self")
	}
	var said []string
	for _, g := range hosts {
		begun, err := try(g)
		if err == nil || begun || ctx.Err() != nil || !elsewhereMay(err) {
			return err
		}
		n.log.Debug("a peer does not take a job", "peer", g.Peer, "err", err)
		said = append(said, g.Name+": "+mesh.AsError(err).Msg)
	}
	return mesh.Errorf(mesh.Unavailable, "none of %d peers takes it: %s", len(hosts), strings.Join(said, "; ")).
		WithHint("ask one of them for more, or run it here with --peer self")
}

// elsewhereMay reports whether another peer may take what this one did not.
func elsewhereMay(err error) bool {
	var refused *request.Refused
	switch mesh.KindOf(err) {
	case mesh.Invalid, mesh.NotFound, mesh.Unsupported:
		// The work itself is wrong, unless that is said of the peer.
		return mesh.AsError(err).Rule != "" && errors.As(err, &refused)
	}
	return true
}
