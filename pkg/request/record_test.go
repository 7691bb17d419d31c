package request

import (
	"context"
	"testing"

	"peercompute/pkg/audit"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

// A refusal is on record when its answer is sent, the next ones are counted, and a
// question of what would be decided leaves nothing.
func TestRefusalsAreOnRecord(t *testing.T) {
	server, client := pair(t, map[wire.Verb]Handler{
		wire.VerbDeploy: func(context.Context, *Call) (Reply, error) {
			return Reply{Body: wire.Empty{}, Commit: func(*store.Tx) error {
				return mesh.Errorf(mesh.Quota, "no more").WithRule("grant.workloads")
			}}, nil
		},
		wire.VerbExplain: func(context.Context, *Call) (Reply, error) { return Reply{Body: wire.Explained{}}, nil },
		wire.VerbList:    func(context.Context, *Call) (Reply, error) { return Reply{Body: wire.ListReply{}}, nil },
	})
	ctx := context.Background()
	before := records(t, server)
	for range 3 {
		if err := client.client.Do(ctx, server.key.ID, wire.VerbDeploy, wire.Deploy{}, nil); mesh.KindOf(err) != mesh.Quota {
			t.Fatal(err)
		}
		if err := client.client.Do(ctx, server.key.ID, wire.VerbExplain, wire.Deploy{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	got := records(t, server)[len(before):]
	if len(got) != 1 || got[0].Actor != client.key.ID.String() || got[0].Action != "deploy" || got[0].Rule != "grant.workloads" || got[0].Outcome != audit.Refused {
		t.Fatalf("three refusals and three questions are %+v", got)
	}
	for range 3 {
		if err := client.client.Do(ctx, server.key.ID, wire.VerbList, wire.List{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := records(t, server)[len(before):]; len(got) != 2 || got[1].Action != "list" || got[1].Outcome != audit.Done {
		t.Fatalf("three lists are %+v", got)
	}
}

func records(t *testing.T, n *node) []audit.Line {
	t.Helper()
	lines, err := n.audit.Read(1, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return lines
}
