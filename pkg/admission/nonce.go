package admission

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

// A nonce record is: digest of the request (32) · expiry, Unix ms (8) · state (1)
// · the answer's bytes when the state is answered.
type nonceState byte

const (
	recorded nonceState = 0 // nothing is known to have been done
	answered nonceState = 1 // done; the answer follows
	spent    nonceState = 2 // done; the answer was a stream or too large to keep
)

const recordHead = 32 + 8 + 1

// maxKept bounds the answer that is kept for a repeated request, in bytes.
const maxKept = 8 << 10

var errKnown = errors.New("nonce is known")

func encodeRecord(d wire.Digest, expires time.Time, s nonceState, answer []byte) []byte {
	b := make([]byte, 0, recordHead+len(answer))
	b = append(b, d[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(expires.UnixMilli()))
	return append(append(b, byte(s)), answer...)
}

func expiryKey(ms uint64, key nonceKey) []byte {
	return append(binary.BigEndian.AppendUint64(nil, ms), key...)
}

// record commits the nonce, before anything else is done about the request.
func (g *Gate) record(ctx context.Context, t *Ticket, now, expires time.Time) error {
	g.mu.Lock()
	if g.inFlight[t.key] != nil {
		g.mu.Unlock()
		return errKnown
	}
	g.inFlight[t.key] = t.done
	g.mu.Unlock()

	var delta int
	err := g.cfg.Store.Update(ctx, func(tx *store.Tx) (err error) {
		delta = 1
		if tx.Get(store.Nonces, []byte(t.key)) != nil {
			return errKnown
		}
		pruned, err := prune(tx, now)
		if err != nil {
			return err
		}
		delta -= pruned
		if g.count()+delta > g.cfg.MaxNonces {
			return mesh.Errorf(mesh.Overloaded, "this machine remembers %d recent requests and can take no more now", g.cfg.MaxNonces).
				WithRule("request.capacity").WithHint("try again in a few minutes")
		}
		if err := tx.Put(store.Nonces, []byte(t.key), encodeRecord(t.Digest, expires, recorded, nil)); err != nil {
			return err
		}
		if err := tx.Put(store.NonceExpiry, expiryKey(uint64(expires.UnixMilli()), t.key), nil); err != nil {
			return err
		}
		return raiseHigh(tx, now)
	})
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		delete(g.inFlight, t.key)
		close(t.done)
		return err
	}
	g.nonces += delta
	return nil
}

func (g *Gate) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.nonces
}

// raiseHigh persists the high-water time.
func raiseHigh(tx *store.Tx, now time.Time) error {
	ms := uint64(now.UnixMilli())
	if v := tx.Get(store.Meta, keyHigh); len(v) == 8 && binary.BigEndian.Uint64(v) >= ms {
		return nil
	}
	return tx.Put(store.Meta, keyHigh, binary.BigEndian.AppendUint64(nil, ms))
}

// prune drops nonces whose requests could no longer pass the window. Time never
// goes back, so a dropped one stays unacceptable.
func prune(tx *store.Tx, now time.Time) (int, error) {
	cut := uint64(now.Add(-wire.MaxDrift).UnixMilli())
	var old [][]byte
	err := tx.Each(store.NonceExpiry, nil, func(k, _ []byte) (bool, error) {
		if len(k) < 8 || binary.BigEndian.Uint64(k) >= cut || len(old) >= pruneAtOnce {
			return false, nil
		}
		old = append(old, bytes.Clone(k))
		return true, nil
	})
	if err != nil {
		return 0, err
	}
	for _, k := range old {
		if err := errors.Join(tx.Delete(store.NonceExpiry, k), tx.Delete(store.Nonces, k[8:])); err != nil {
			return 0, err
		}
	}
	return len(old), nil
}

// lookup returns what came of an earlier request with this nonce: nil, nil if
// there was none. It waits for one that is being acted upon.
func (g *Gate) lookup(ctx context.Context, key nonceKey, digest wire.Digest) ([]byte, error) {
	g.mu.Lock()
	wait := g.inFlight[key]
	g.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	var rec []byte
	err := g.cfg.Store.View(func(tx *store.Tx) error {
		rec = bytes.Clone(tx.Get(store.Nonces, []byte(key)))
		return nil
	})
	if err != nil || rec == nil {
		return nil, err
	}
	if len(rec) < recordHead || !bytes.Equal(rec[:32], digest[:]) {
		return nil, mesh.Errorf(mesh.Replayed, "the request's nonce was used for another request").WithRule("request.nonce")
	}
	switch nonceState(rec[40]) {
	case answered:
		return rec[recordHead:], nil
	case spent:
		return nil, mesh.Errorf(mesh.Replayed, "the request was carried out before; it is not carried out twice").WithRule("request.nonce")
	}
	return nil, mesh.Errorf(mesh.Interrupted, "the request was recorded before this peer stopped, and nothing was done").
		WithRule("request.nonce").WithHint("send it again as a new request")
}

// Finish records the outcome: the effect (commit, may be nil) and the answer in
// one transaction. If commit fails nothing is recorded, the error is returned and
// Finish must be called again with the answer that says so. An answer of nil, or
// one too large to keep, makes a repetition an error instead of the same answer.
func (t *Ticket) Finish(ctx context.Context, answer []byte, commit func(*store.Tx) error) error {
	return t.finish(ctx, answer, func(tx *store.Tx) error {
		if commit == nil {
			return nil
		}
		// The sender may have been removed since the request was admitted.
		if _, ok := t.gate.cfg.Trust.Get(t.From); !ok {
			return mesh.Errorf(mesh.Untrusted, "you were removed from this machine's trust list").WithRule("trust")
		}
		return commit(tx)
	})
}

// Refuse records the answer to a request that has no effect, whoever is trusted
// by now. note (may be nil) is what else is put on record about it.
func (t *Ticket) Refuse(ctx context.Context, answer []byte, note func(*store.Tx) error) error {
	if note == nil {
		note = func(*store.Tx) error { return nil }
	}
	return t.finish(ctx, answer, note)
}

func (t *Ticket) finish(ctx context.Context, answer []byte, effect func(*store.Tx) error) error {
	g := t.gate
	err := g.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		if err := effect(tx); err != nil {
			return err
		}
		rec := tx.Get(store.Nonces, []byte(t.key))
		if len(rec) < recordHead {
			return mesh.Errorf(mesh.Internal, "the request's record is gone")
		}
		expires := time.UnixMilli(int64(binary.BigEndian.Uint64(rec[32:40])))
		state := answered
		if answer == nil || len(answer) > maxKept {
			state, answer = spent, nil
		}
		return tx.Put(store.Nonces, []byte(t.key), encodeRecord(t.Digest, expires, state, answer))
	})
	if err == nil {
		t.Release()
	}
	return err
}

// Release ends the ticket. Without a Finish before it, a repetition of the
// request is told that nothing was done.
func (t *Ticket) Release() {
	g := t.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inFlight[t.key] == t.done {
		delete(g.inFlight, t.key)
		close(t.done)
	}
}
