package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"peercompute/test/internal/testmesh"
)

// A program is queued on bob again and again, by alice's peerd, also after it was
// killed; each run reads the same input, and what came of it is a job like any other.
func TestCron(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.Peer("bob")
	m.Lend(bob, alice)
	count := testmesh.Wasm(t, "wordcount")
	r := alice.CtlIn([]byte("three words here\n"), "cron", "create", "words", "@every 1m", count, "--peer", "bob")
	if r.Code != 0 || strings.TrimSpace(r.Stdout) != "words" || !strings.Contains(r.Stderr, "next on bob") {
		t.Fatalf("cron create: %+v", r)
	}
	if r := alice.Ctl("cron", "create", "words", "@daily", count, "--peer", "bob"); r.Code == 0 || !strings.Contains(r.Stderr, "already") {
		t.Errorf("the same name twice: %+v", r)
	}
	alice.Kill()
	alice.Start()
	var list []struct {
		Name, Job, Failure string
		Missed             int
	}
	within(t, 2*time.Minute, "the first run", func() bool {
		if err := json.Unmarshal([]byte(alice.Must("cron", "ls", "-o", "json")), &list); err != nil || len(list) != 1 {
			t.Fatalf("cron ls: %v, %v", list, err)
		}
		return list[0].Job != ""
	})
	alice.Must("job", "wait", list[0].Job)
	if out := alice.Must("job", "result", list[0].Job); out != "1 lines, 3 words, 17 bytes\n" {
		t.Errorf("its job says %q, want one line of three words", out)
	}
	if out := bob.Must("job", "ls"); !strings.Contains(out, "alice") {
		t.Errorf("bob knows no job of alice's:\n%s", out)
	}
	alice.Must("cron", "pause", "words")
	if out := alice.Must("cron", "ls"); !strings.Contains(out, "paused") {
		t.Errorf("not paused:\n%s", out)
	}
	alice.Must("cron", "rm", "words")
	if out := alice.Must("audit"); !strings.Contains(out, "cron.create") || !strings.Contains(out, "cron.remove") {
		t.Errorf("cron is not on record:\n%s", out)
	}
}
