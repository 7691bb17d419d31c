package e2e

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/wire"
	"peercompute/test/internal/testmesh"
)

// counted is what the job of these tests reads.
const counted = "one two\nthree\n"

// honest has a job run by bob and carol for alice, who agree, and returns its module and
// what they sign.
func honest(t *testing.T) (alice *testmesh.Node, module, output string, r receipt) {
	t.Helper()
	m := testmesh.New(t)
	alice, bob, carol := m.Peer("alice"), m.Peer("bob"), m.Peer("carol")
	m.Lend(bob, alice)
	m.Lend(carol, alice)
	module = testmesh.Wasm(t, "wordcount")
	got := alice.CtlIn([]byte(counted), "run", "--replicas", "2", module)
	list := receipts(t, alice)
	if got.Code != 0 || len(list) != 2 || list[0].Fuel != list[1].Fuel || list[0].Output != list[1].Output {
		t.Fatalf("%+v\n%+v", got, list)
	}
	return alice, module, got.Stdout, list[0]
}

// of waits until alice has a receipt of a peer that check accepts.
func of(t *testing.T, alice *testmesh.Node, peer string, check func(receipt) bool) (found receipt) {
	t.Helper()
	within(t, 30*time.Second, "a receipt of "+peer, func() bool {
		for _, r := range receipts(t, alice, "--peer", peer) {
			if r.Peer == peer && check(r) {
				found = r
				return true
			}
		}
		return false
	})
	return found
}

func disputed(r receipt) bool {
	for _, v := range r.Verified {
		if !v.Agrees {
			return true
		}
	}
	return false
}

// One of three peers signs a wrong output, or a wrong count of fuel, and its receipt
// holds in itself. The quorum's result is the right one, the liar is named, and
// repeating its run finds it as well.
func TestLyingPeer(t *testing.T) {
	t.Parallel()
	alice, count, output, true1 := honest(t)
	for name, tc := range map[string]struct {
		lie   testmesh.Lie
		named string
	}{
		"mallory": {testmesh.Lie{Output: "7 lines, 7 words, 7 bytes\n", Fuel: true1.Fuel, Memory: true1.PeakMemory}, "output sha256:"},
		"trudy":   {testmesh.Lie{Output: output, Fuel: true1.Fuel + 1, Memory: true1.PeakMemory}, "fuel "},
	} {
		liar := testmesh.NewLiar(t, testmesh.Runs(tc.lie))
		alice.Must("peers", "add", liar.Addr(), "--name", name)

		r := alice.CtlIn([]byte(counted), "run", "--replicas", "3", "--quorum", "2", count)
		if r.Code != 0 || r.Stdout != output {
			t.Errorf("two of three are honest: %+v", r)
		}
		// It is named at once, or was so slow that nobody waited for it.
		if !strings.Contains(r.Stderr, name+" differs: "+tc.named) && !strings.Contains(r.Stderr, name+" was not waited for") {
			t.Errorf("%s is not named: %s", name, r.Stderr)
		}
		lied := of(t, alice, name, disputed)
		if r := alice.CtlIn([]byte(counted), "run", "--replicas", "3", "--quorum", "3", count); r.Code != 125 || r.Stdout != "" || !strings.Contains(r.Stderr, name+" differs: "+tc.named) {
			t.Errorf("all three were waited for: %+v", r)
		}
		if lied.Flaw != "" {
			t.Errorf("its receipt does not hold in itself, so this test shows nothing: %+v", lied)
		}

		if r := alice.Ctl("verify", lied.ID, "--by", "bob"); r.Code != 1 || !strings.Contains(r.Stderr, "bob does not agree with "+name+": "+tc.named) {
			t.Errorf("verify: %+v", r)
		}
		alice.Must("peers", "remove", name)
	}
	// A liar that verifies is found by the honest receipt.
	liar := testmesh.NewLiar(t, testmesh.Runs(testmesh.Lie{Output: "no\n", Fuel: true1.Fuel, Memory: true1.PeakMemory}))
	alice.Must("peers", "add", liar.Addr(), "--name", "mallory")
	if r := alice.Ctl("verify", true1.ID, "--by", "mallory"); r.Code != 1 || !strings.Contains(r.Stderr, "mallory does not agree with") {
		t.Errorf("verified by a liar: %+v", r)
	}
}

// A quorum does not wait for one that is slow. What that signs in the end is kept and
// compared all the same.
func TestQuorumDoesNotWait(t *testing.T) {
	t.Parallel()
	alice, count, output, sample := honest(t)
	release := make(chan struct{})
	slow := testmesh.NewLiar(t, testmesh.Runs(testmesh.Lie{Output: "late\n", Fuel: sample.Fuel, Memory: sample.PeakMemory, After: release}))
	alice.Must("peers", "add", slow.Addr(), "--name", "slow")
	r := alice.CtlIn([]byte(counted), "run", "--replicas", "3", "--quorum", "2", count)
	if r.Code != 0 || r.Stdout != output || !strings.Contains(r.Stderr, "slow was not waited for") {
		t.Fatalf("%+v", r)
	}
	if list := receipts(t, alice, "--peer", "slow"); len(list) != 0 {
		t.Errorf("it has signed already: %+v", list)
	}
	close(release)
	of(t, alice, "slow", disputed)
	if out := alice.Must("alarms"); !strings.Contains(out, "quorum.differs") || !strings.Contains(out, "slow") {
		t.Errorf("nobody is told:\n%s", out)
	}
}

// A peer can charge for containers only what was asked of it and only in its own name.
func TestLyingLedger(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice := m.Peer("alice")
	var about atomic.Value // mesh.PeerID
	var seconds atomic.Uint64
	about.Store(alice.ID())
	seconds.Store(30)
	liar := testmesh.NewLiar(t, map[wire.Verb]testmesh.Answer{
		wire.VerbDeploy: func(_ *testmesh.Liar, o *wire.Opened) (any, testmesh.Then) {
			var in wire.Deploy
			_ = wire.DecodeBody(o.Body, &in)
			return wire.Accepted{Workload: mesh.NewWorkloadID(o.Digest), Spec: in.Spec.WithDefaults(), Revision: 1}, nil
		},
		wire.VerbStatement: func(l *testmesh.Liar, _ *wire.Opened) (any, testmesh.Then) {
			b, _ := wire.SealStatement(l.Key.Private, wire.Statement{
				Version: wire.Version, Runner: l.Key.ID, Asker: about.Load().(mesh.PeerID), Time: time.Now().UnixMilli(), ContainerSeconds: seconds.Load(),
			})
			return wire.StatementReply{Statement: b}, nil
		},
	})
	alice.Must("peers", "add", liar.Addr(), "--name", "mallory")
	if list := balances(t, alice); len(list) != 0 {
		t.Errorf("it is asked although nothing is there: %+v", list)
	}
	alice.Must("deploy", "example.org/app:1", "--peer", "mallory", "-d")
	if list := balances(t, alice); len(list) != 1 || list[0].There.ContainerSeconds != 30 || list[0].Debtor != "self" || list[0].NetSeconds != 30 {
		t.Errorf("what may be true: %+v", list)
	}
	seconds.Store(1_000_000)
	if list := balances(t, alice); len(list) != 1 || list[0].There.ContainerSeconds != 30 || !strings.Contains(list[0].Flaw, "it states 1000000 container seconds") {
		t.Errorf("what cannot be true: %+v", list)
	}
	if r := alice.Ctl("balance"); r.Code != 0 || !strings.Contains(r.Stderr, "mallory's statement of containers does not count: it states 1000000 ") {
		t.Errorf("nobody is told: %+v", r)
	}
	seconds.Store(40)
	about.Store(liar.Key.ID)
	if list := balances(t, alice); len(list) != 1 || list[0].There.ContainerSeconds != 30 {
		t.Errorf("a statement about another: %+v", list)
	}
	// The price is the owner's policy, and part of what is owed.
	alice.Must("lend", "--price-per-container-second", "0.5")
	if list := balances(t, alice); len(list) != 1 || list[0].Amount != 15 || list[0].Debtor != "self" {
		t.Errorf("30 seconds at 0.5: %+v", list)
	}
}

// For how long a container was up is counted where it ran, signed, and known to both.
func TestContainerLedger(t *testing.T) {
	t.Parallel()
	image := container(t)
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.Peer("bob")
	m.Lend(bob, alice)
	deploy(t, alice, image, "--peer", "bob", "--name", "box", "--port", "8080", "--memory", "64M")
	deploy(t, bob, image, "--peer", "self", "--name", "own", "--port", "8080", "--memory", "64M")
	live := begin(t, alice, nil, "top", "-o", "json", "--every", "1s", "box")
	for range 6 {
		live.line(t)
	}
	live.end(t)
	alice.Must("rm", "box", "--force")
	var mine, its []balance
	within(t, time.Minute, "the same count on both sides", func() bool {
		mine, its = balances(t, alice), balances(t, bob)
		return len(mine) == 1 && len(its) == 1 && its[0].Here.ContainerSeconds > 0 && mine[0].There == its[0].Here
	})
	if its[0].Peer != "alice" || its[0].Debtor != "alice" || mine[0].Debtor != "self" || mine[0].NetSeconds != int64(its[0].Here.ContainerSeconds) {
		t.Errorf("alice: %+v\nbob: %+v", mine, its)
	}
}
