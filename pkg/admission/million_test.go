package admission

import (
	"context"
	"encoding/binary"
	"os"
	"runtime"
	"testing"
	"time"

	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

// BenchmarkMillionNonces is a gate that remembers a million live nonces: what it
// holds in memory, how large its file is, how long it takes to open it, and how
// many decisions it makes then, one after the other.
func BenchmarkMillionNonces(bb *testing.B) {
	const nonces = 1_000_000
	b := newBench(bb)
	g := b.trust[b.alice]
	g.Quota.Requests = 1 << 40
	b.trust[b.alice] = g
	before := heap()
	expires := b.clock.now().Add(wire.Lifetime)
	for done := 0; done < nonces; {
		err := b.store.Update(context.Background(), func(tx *store.Tx) error {
			for range 20_000 {
				var n wire.Nonce
				binary.BigEndian.PutUint64(n[:], uint64(done)*0x9e3779b97f4a7c15) // spread as random ones are
				binary.BigEndian.PutUint64(n[8:], uint64(done))
				key := nonceKey(string(b.alice) + string(n[:]))
				if err := tx.Put(store.Nonces, []byte(key), encodeRecord(wire.Digest{1}, expires, answered, make([]byte, 64))); err != nil {
					return err
				}
				if err := tx.Put(store.NonceExpiry, expiryKey(uint64(expires.UnixMilli()), key), nil); err != nil {
					return err
				}
				done++
			}
			return nil
		})
		if err != nil {
			bb.Fatal(err)
		}
	}
	start := time.Now()
	b.restart()
	opened := time.Since(start)
	if b.count() != nonces {
		bb.Fatalf("the gate knows %d nonces, want %d", b.count(), nonces)
	}
	info, err := os.Stat(b.path)
	if err != nil {
		bb.Fatal(err)
	}
	grown := max(0, heap()-before)
	for bb.Loop() {
		ticket, _, err := b.Admit(context.Background(), b.alice, b.request(b.alice))
		if err != nil {
			bb.Fatal(err)
		}
		if err := ticket.Finish(context.Background(), []byte("answer"), nil); err != nil {
			bb.Fatal(err)
		}
	}
	bb.ReportMetric(float64(grown)/1e6, "heap-MB")
	bb.ReportMetric(float64(info.Size())/1e6, "file-MB")
	bb.ReportMetric(opened.Seconds()*1000, "open-ms")
	bb.ReportMetric(float64(bb.N)/bb.Elapsed().Seconds(), "decisions/s")
}

// heap is the bytes that are in use, after a collection.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
