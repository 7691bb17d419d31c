package admission

import (
	"context"
	"testing"

	"peercompute/pkg/audit"
	"peercompute/pkg/store"
)

// BenchmarkRecord is what the audit log adds to one durable decision: the same
// request with an effect, without and with its entry.
func BenchmarkRecord(bb *testing.B) {
	for name, entry := range map[string]bool{"without": false, "with": true} {
		bb.Run(name, func(bb *testing.B) {
			b := newBench(bb)
			g := b.trust[b.alice]
			g.Quota.Requests = 1 << 40
			b.trust[b.alice] = g
			for bb.Loop() {
				ticket, _, err := b.Admit(context.Background(), b.alice, b.request(b.alice))
				if err != nil {
					bb.Fatal(err)
				}
				err = ticket.Finish(context.Background(), []byte("answer"), func(tx *store.Tx) error {
					if !entry {
						return nil
					}
					return audit.Append(tx, audit.Entry{
						Time: b.clock.now(), Actor: b.alice.String(), Action: "deploy", Subject: "aaaaaaaaaaaaaaaa", Rule: "grant", Outcome: audit.Done,
						Detail: "hello: container nginx:1.29 1000 mCPU, 104857600 B memory, egress none",
					})
				})
				if err != nil {
					bb.Fatal(err)
				}
			}
		})
	}
}
