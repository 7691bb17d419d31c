package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"peercompute/pkg/admission"
	"peercompute/pkg/audit"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// grants is a trust list.
type grants map[mesh.PeerID]trust.Grant

func (g grants) Get(p mesh.PeerID) (trust.Grant, bool) { t, ok := g[p]; return t, ok }

// measureAdmission counts decisions as they are made in production: the signature
// verified, the nonce on disk before anything happens, the answer on disk before
// it is sent. The rival is the disk: one small write after the other, each synced.
func measureAdmission(ctx context.Context, b *bench, out *Section) error {
	const ours, disk = "admission", "one fsync"
	var half, most series
	rates := map[int]*series{}
	senders := []int{1, 16, 64}
	each := map[int]int{1: 200, 16: 100, 64: 40} // requests of one sender
	for n := range b.rounds(5) {
		synced, err := syncWrites(filepath.Join(b.dir, fmt.Sprintf("sync%d", n)), 200)
		if err != nil {
			return err
		}
		half.add(disk, milliseconds(percentile(synced, 0.5)))
		most.add(disk, milliseconds(percentile(synced, 0.99)))
		for _, s := range senders {
			took, elapsed, err := decisions(ctx, filepath.Join(b.dir, fmt.Sprintf("state%d-%d", n, s)), s, each[s])
			if err != nil {
				return err
			}
			rate := float64(len(took)) / elapsed.Seconds()
			note("    %d senders: %.0f decisions/s", s, rate)
			if rates[s] == nil {
				rates[s] = &series{}
			}
			rates[s].add(disk, 1/median(seconds(synced)))
			rates[s].add(ours, rate)
			if s == 1 {
				half.add(ours, milliseconds(percentile(took, 0.5)))
				most.add(ours, milliseconds(percentile(took, 0.99)))
			}
		}
	}
	for _, s := range senders {
		out.Rows = append(out.Rows, rates[s].row(fmt.Sprintf("%d senders", s), "per s", disk, ours))
	}
	out.Rows = append(out.Rows, half.row("one decision, p50", "ms", disk, ours), most.row("one decision, p99", "ms", disk, ours))
	out.Notes = append(out.Notes, "a decision is two durable transactions, the nonce's and the answer's; a transaction of the state file is two syncs; senders at once share them")
	return nil
}

// decisions has each sender put its requests through one gate, one after the
// other, and returns how long each took.
func decisions(ctx context.Context, path string, senders, each int) (took []time.Duration, elapsed time.Duration, err error) {
	if err := store.Create(path); err != nil {
		return nil, 0, err
	}
	st, err := store.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, st.Close(), os.Remove(path)) }()
	_, self, err := newPeer()
	if err != nil {
		return nil, 0, err
	}
	list := grants{}
	gate, err := admission.NewGate(admission.Config{Store: st, Trust: list, Self: self, Now: time.Now})
	if err != nil {
		return nil, 0, err
	}
	requests := make([][][]byte, senders)
	ids := make([]mesh.PeerID, senders)
	for i := range senders { // signed beforehand: that is the senders' work
		if ids[i], requests[i], err = sealed(self, st.Incarnation(), each); err != nil {
			return nil, 0, err
		}
		list[ids[i]] = trust.Grant{Peer: ids[i], Name: fmt.Sprintf("p%d", i), Quota: trust.Quota{Requests: 1 << 30}}
	}
	times, errs := make([][]time.Duration, senders), make([]error, senders)
	began := time.Now()
	var wg sync.WaitGroup
	for i := range senders {
		wg.Go(func() {
			for _, r := range requests[i] {
				start := time.Now()
				if errs[i] = decide(ctx, gate, ids[i], r); errs[i] != nil {
					return
				}
				times[i] = append(times[i], time.Since(start))
			}
		})
	}
	wg.Wait()
	elapsed = time.Since(began)
	took = slices.Concat(times...)
	slices.Sort(took)
	return took, elapsed, errors.Join(errs...)
}

func decide(ctx context.Context, gate *admission.Gate, from mesh.PeerID, data []byte) error {
	o, err := wire.OpenRequest(data)
	if err != nil {
		return err
	}
	t, prior, err := gate.Admit(ctx, from, o)
	if err != nil {
		return err
	}
	if t == nil {
		return fmt.Errorf("a new request was answered with %d bytes of an earlier one", len(prior))
	}
	defer t.Release()
	return t.Finish(ctx, make([]byte, 200), func(tx *store.Tx) error { // an effect is on record
		return audit.Append(tx, audit.Entry{Time: time.Now(), Actor: from.String(), Action: o.Verb.String(), Rule: "grant", Outcome: audit.Done})
	})
}

func newPeer() (crypto.PrivKey, mesh.PeerID, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, "", err
	}
	id, err := peer.IDFromPrivateKey(key)
	return key, id, err
}

func sealed(to mesh.PeerID, life wire.Incarnation, n int) (mesh.PeerID, [][]byte, error) {
	key, from, err := newPeer()
	if err != nil {
		return "", nil, err
	}
	body, err := wire.Marshal(wire.List{})
	if err != nil {
		return "", nil, err
	}
	out := make([][]byte, n)
	now := time.Now()
	for i := range out {
		out[i], err = wire.SealRequest(key, wire.Request{
			Version: wire.Version, Verb: wire.VerbList, From: from, To: to, Incarnation: life, Nonce: wire.NewNonce(),
			Issued: now.UnixMilli(), Expires: now.Add(wire.Lifetime).UnixMilli(), Body: body,
		})
		if err != nil {
			return "", nil, err
		}
	}
	return from, out, nil
}

// syncWrites appends n blocks of 4 KiB and syncs each; the times are sorted.
func syncWrites(path string, n int) (took []time.Duration, err error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(path)) }()
	block := make([]byte, 4096)
	for range n {
		began := time.Now()
		if _, err := f.Write(block); err != nil {
			return nil, err
		}
		if err := f.Sync(); err != nil {
			return nil, err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took, nil
}

func seconds(v []time.Duration) []float64 {
	out := make([]float64, len(v))
	for i, d := range v {
		out[i] = d.Seconds()
	}
	return out
}
