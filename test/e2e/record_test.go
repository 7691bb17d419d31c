package e2e

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/store"
	"peercompute/test/internal/testmesh"
)

// What would be decided is what is decided, and asking leaves nothing behind; what
// is decided is on record, without secrets; an edit of the record is found.
func TestDecisionsAreExplainedAndRecorded(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.Peer("bob")
	m.Lend(bob, alice, "--allow", "deploy", "--memory", "1G", "--max-workloads", "5", "--requests", "100000/min")
	hello := testmesh.Tiny(t, "hello")

	e := parse[control.Explanation](t, alice.Must("explain", hello, "--peer", "bob", "--name", "hello", "-e", "TOKEN=hunter2", "-o", "json"))
	if !e.Allow || len(e.Checks) < 10 || e.Checks[0].Rule != "trust" || e.Peer != "bob" {
		t.Fatalf("explained as %+v", e)
	}
	dry := alice.Ctl("deploy", hello, "--peer", "bob", "--name", "big", "--memory", "2G", "--dry-run")
	refused(t, dry, "bob would refuse: memory 2 GiB exceeds your grant of 1 GiB there", "[grant.memory]",
		"next: ask bob for: peerctl peers allow "+alice.ID().String()+" --memory 2GiB")
	if len(ps(t, bob)) != 0 {
		t.Errorf("asking has started something: %+v", ps(t, bob))
	}
	if log := bob.Must("audit", "-n", "0", "--peer", "alice"); strings.Contains(log, "explain") {
		t.Errorf("asking is on record:\n%s", log)
	}

	// The deploy itself meets the same rule, and the same next step.
	for range 4 {
		refused(t, alice.Ctl("deploy", hello, "--peer", "bob", "--name", "big", "--memory", "2G"),
			"bob refused: memory 2 GiB exceeds your grant of 1 GiB there", "[grant.memory]",
			"next: ask bob for: peerctl peers allow "+alice.ID().String()+" --memory 2GiB")
	}
	w := deploy(t, alice, hello, "--peer", "bob", "--name", "hello", "-e", "TOKEN=hunter2", "--", "--secret=hunter3")
	if out := bob.Must("stop", "--from", "alice"); strings.TrimSpace(out) != "hello" {
		t.Errorf("stopped %q, want hello", out)
	}
	within(t, 20*time.Second, "it to stop", func() bool { return find(t, bob, "hello").State == "stopped" })

	log := bob.Must("audit", "-n", "0", "-o", "json")
	for _, want := range []string{
		`"actor":"local","action":"grant.put","subject":"` + alice.ID().String(),
		`"actor":"alice","actor_id":"` + alice.ID().String() + `","action":"deploy","subject":"` + string(w.ID) + `","rule":"grant","outcome":"done"`,
		`"actor":"local","action":"stop","subject":"` + string(w.ID),
		`"rule":"grant.memory","outcome":"refused"`,
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the record lacks %s:\n%s", want, log)
		}
	}
	if n := strings.Count(log, `"rule":"grant.memory"`); n > 2 { // the first, and the count if a minute has passed
		t.Errorf("four refusals by one rule are %d entries", n)
	}
	export := bob.Must("audit", "export")
	if strings.Contains(export, "hunter") {
		t.Error("a secret is on record")
	}

	// Anybody can check an export; bob can tell that it is his.
	file := filepath.Join(t.TempDir(), "bob.jsonl")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(export)
	if out := bob.Must("audit", "verify", file); !strings.Contains(out, "still holds it") {
		t.Errorf("bob says of his export: %s", out)
	}
	if out := alice.Must("audit", "verify", file); !strings.Contains(out, "not part of this node's log") {
		t.Errorf("alice says of bob's export: %s", out)
	}
	write(strings.Replace(export, "grant.memory", "grant.cpus", 1))
	refused(t, alice.Ctl("audit", "verify", file), "broken at entry", "[audit.chain]")

	// After a restart the record goes on; then somebody edits the state file.
	bob.Must("audit", "verify")
	bob.Stop()
	var seq []byte
	edit(t, bob, func(tx *store.Tx) error {
		return tx.Each(store.Audit, nil, func(k, v []byte) (bool, error) {
			if bytes.Contains(v, []byte("grant.memory")) {
				seq = bytes.Clone(k)
			}
			return seq == nil, nil
		})
	})
	edit(t, bob, func(tx *store.Tx) error {
		return tx.Put(store.Audit, seq, bytes.Replace(tx.Get(store.Audit, seq), []byte("refused"), []byte("reluctd"), 1))
	})
	bob.Start()
	refused(t, bob.Ctl("audit", "verify"), "the audit log is broken at entry", "it was changed", "[audit.chain]")
}

func edit(t *testing.T, n *testmesh.Node, f func(*store.Tx) error) {
	t.Helper()
	st, err := store.Open(filepath.Join(n.Home, store.FileName))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := st.Update(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

// Events tell of trust, requests, workloads, tunnels and connections, the last ones
// and those to come, without a gap.
func TestEvents(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob, gw := m.Trio()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c := bob.Client()
	defer c.Close()
	seen := make(chan control.Event, 10_000)
	done := make(chan error, 1)
	go func() {
		done <- c.Events(ctx, control.EventQuery{Follow: true, Last: 1000}, func(e control.Event) error { seen <- e; return nil })
	}()
	w := deploy(t, alice, testmesh.Tiny(t, "hello"), "--peer", "bob", "--name", "hello", "--publish")
	alice.Ctl("deploy", testmesh.Tiny(t, "hello"), "--peer", "bob", "--name", "large", "--memory", "900G")

	want := map[string]bool{
		"trust grant.put alice": true, "connection up alice": true, "tunnel up gw": true, "admission accepted alice": true,
		"workload running ": true, "tunnel published gw": true, "admission refused alice": true,
	}
	last := uint64(0)
	for len(want) > 0 {
		select {
		case e := <-seen:
			if e.Seq != last+e.Missed+1 {
				t.Errorf("event %d follows %d, with %d missed", e.Seq, last, e.Missed)
			}
			last = e.Seq
			delete(want, e.Type+" "+e.Event+" "+e.Peer)
			if e.Event == "refused" && e.Rule != "grant.memory" {
				t.Errorf("refused as %+v", e)
			}
		case <-ctx.Done():
			t.Fatalf("missing: %v\n%s", want, bob.LogTail(30))
		}
	}
	cancel()
	<-done
	out := bob.Must("events", "--type", "workload", "-n", "1000", "-o", "json")
	if !strings.Contains(out, `"event":"running","subject":"`+string(w.ID)) || strings.Contains(out, `"type":"trust"`) {
		t.Errorf("events of one type:\n%s", out)
	}
	if out := gw.Must("events", "--type", "tunnel"); !strings.Contains(out, "route bob "+string(w.ID)) {
		t.Errorf("the gateway's events:\n%s", out)
	}
	if out := gw.Must("audit"); !strings.Contains(out, "route") {
		t.Errorf("the gateway's record:\n%s", out)
	}
}
