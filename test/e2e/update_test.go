package e2e

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/test/internal/testmesh"
)

// updated is what ps and history promise about revisions.
type updated struct {
	ID       mesh.WorkloadID
	Image    string
	Revision int
	Status   mesh.Status
}

type revision struct {
	Number                     int
	Image, Digest, Outcome, By string
	Failure                    string
	Note                       string
}

func history(t *testing.T, n *testmesh.Node, name string) []revision {
	t.Helper()
	return parse[[]revision](t, n.Must("history", name, "-o", "json"))
}

// 20,000 requests, some of which cannot be repeated, cross two updates, a broken one
// and a rollback of a container. None fails, and the URL stays.
func TestRollingUpdateUnderLoad(t *testing.T) {
	t.Parallel()
	image := container(t)
	m := testmesh.New(t)
	alice, bob, gw := m.Trio()
	web := m.Web(gw)
	update := func(version string, more ...string) work {
		return deploy(t, alice, append([]string{image, "--peer", "bob", "--name", "box", "--port", "8080", "--health", "http:/healthz", "--publish", "--", "--name", version}, more...)...)
	}
	first := update("v1")
	if w := parse[[]updated](t, alice.Must("ps", "-o", "json")); len(w) != 1 || w[0].Status.Health != mesh.HealthOK {
		t.Errorf("with a health check ps says %+v", w)
	}

	const clients, total = 8, 20_000
	var done, failed atomic.Int64
	var stop atomic.Bool
	answers := sync.Map{}
	var wg sync.WaitGroup
	payload := bytes.Repeat([]byte("x"), 1000)
	for c := range clients {
		wg.Go(func() {
			for i := 0; !stop.Load() || done.Load() < total; i++ {
				method, path, body := http.MethodGet, "/", io.Reader(nil)
				if i%10 == c {
					method, path, body = http.MethodPost, "/upload", bytes.NewReader(payload)
				}
				req, err := http.NewRequestWithContext(t.Context(), method, first.URL+path, body)
				if err != nil {
					t.Error(err)
					return
				}
				res, err := web.Do(req)
				if err != nil {
					failed.Add(1)
					t.Logf("%s: %v", method, err)
				} else {
					data, err := io.ReadAll(res.Body)
					res.Body.Close()
					if err != nil || res.StatusCode != http.StatusOK {
						failed.Add(1)
						t.Logf("%s: %s %q, %v", method, res.Status, data, err)
					} else if method == http.MethodGet {
						answers.Store(string(data), true)
					}
				}
				done.Add(1)
			}
		})
	}
	serves := func(version string) {
		t.Helper()
		// What deploy returned for holds for every request that begins after it.
		if _, body := get(t, web, first.URL+"/"); body != "hello from "+version+": GET /\n" {
			t.Errorf("%s is to serve, and the answer is %q", version, body)
		}
	}
	for _, version := range []string{"v2", "v3"} {
		if w := update(version); w.URL != first.URL || w.ID != first.ID {
			t.Errorf("the update has the URL %s and ID %s, want %s and %s", w.URL, w.ID, first.URL, first.ID)
		}
		serves(version)
	}
	broken := alice.Ctl("deploy", image, "--peer", "bob", "--name", "box", "--port", "8080", "--", "--nonsense")
	refused(t, broken, "box stays at revision 3", "flag provided but not defined: -nonsense", "peerctl history box")
	serves("v3")
	if url := strings.TrimSpace(alice.Must("rollback", "box", "--to", "1")); url != first.URL {
		t.Errorf("rollback printed %q", url)
	}
	serves("v1")
	stop.Store(true)
	wg.Wait()
	if n := failed.Load(); n != 0 {
		t.Errorf("%d of %d requests failed", n, done.Load())
	}
	t.Logf("%d requests, %d failed", done.Load(), failed.Load())
	for _, v := range []string{"v1", "v2", "v3"} {
		if _, seen := answers.Load("hello from " + v + ": GET /\n"); !seen {
			t.Errorf("no visitor saw %s", v)
		}
	}
	var got []string
	for _, v := range history(t, alice, "box") {
		got = append(got, v.Outcome)
		if v.By != "self" || v.Image != image || v.Outcome != "failed" && !mesh.ValidDigest(v.Digest) {
			t.Errorf("history: %+v", v)
		}
	}
	if want := "replaced replaced replaced failed serving"; strings.Join(got, " ") != want {
		t.Errorf("history: %q, want %q", got, want)
	}
	within(t, time.Minute, "only the revision that serves to be left", func() bool { return len(bob.Containers()) == 1 })
	alice.Must("rm", "-f", "box")
	within(t, time.Minute, "the containers to be removed", func() bool { return len(bob.Containers()) == 0 })
}

// peerd is killed during updates, at moments spread over all that they do. Each time
// the next one leaves one revision serving at the same URL, and nothing of the other.
func TestUpdateSurvivesKill(t *testing.T) {
	t.Parallel()
	image := container(t)
	m := testmesh.New(t)
	alice, bob, gw := m.Trio()
	web := m.Web(gw)
	args := func(version string, more ...string) []string {
		return append(append([]string{"deploy", image, "--peer", "bob", "--name", "box", "--port", "8080"}, more...), "--", "--name", version)
	}
	w := deploy(t, alice, args("v0", "--publish")[1:]...)
	for i, delay := range []time.Duration{0, 50 * time.Millisecond, 150 * time.Millisecond, 300 * time.Millisecond, 600 * time.Millisecond, time.Second} {
		version := "v" + string(rune('1'+i))
		alice.Must(args(version, "-d")...)
		time.Sleep(delay) // not to wait for anything: the moment of the kill is what varies
		bob.Kill()
		bob.Start()
		within(t, time.Minute, version+" to take over", func() bool {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := web.Do(req)
			if err != nil {
				return false
			}
			defer res.Body.Close()
			body, _ := io.ReadAll(res.Body)
			return string(body) == "hello from "+version+": GET /\n"
		})
		within(t, time.Minute, "one container to be left", func() bool { return len(bob.Containers()) == 1 })
	}
	if list := ps(t, bob); len(list) != 1 || list[0].ID != w.ID {
		t.Errorf("bob has %+v", list)
	}
}

// An update needs room for both revisions; where there is only room for one the
// refusal says so, and --recreate does with it. A guest is updated like a container.
func TestUpdateOfAGuest(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob, gw := m.Trio()
	web := m.Web(gw)
	bob.Must("peers", "allow", "alice", "--max-workloads", "1")
	v1, v2 := testmesh.Tiny(t, "one"), testmesh.Tiny(t, "two")
	w := deploy(t, alice, v1, "--peer", "bob", "--name", "guest", "--publish", "--health", "http:/")
	refused(t, alice.Ctl("deploy", v2, "--peer", "bob", "--name", "guest"), "bob refused", "[grant.workloads]", "--recreate", "--max-workloads 2")
	refused(t, alice.Ctl("explain", v2, "--peer", "bob", "--name", "guest"), "grant.workloads")
	alice.Must("explain", v2, "--peer", "bob", "--name", "guest", "--recreate")
	deploy(t, alice, v2, "--peer", "bob", "--name", "guest", "--recreate")
	if _, body := get(t, web, w.URL); body != "two" {
		t.Errorf("after --recreate: %q", body)
	}
	bob.Must("peers", "allow", "alice", "--max-workloads", "2")
	alice.Must("rollback", "guest")
	if _, body := get(t, web, w.URL); body != "one" {
		t.Errorf("after rollback: %q", body)
	}
	// What was stopped is deployed again as the new revision alone.
	alice.Must("stop", "guest")
	if again := deploy(t, alice, v2, "--peer", "bob", "--name", "guest", "--publish"); again.ID != w.ID || again.URL != w.URL {
		t.Errorf("deployed again: %+v, before: %+v", again, w)
	}
	if _, body := get(t, web, w.URL); body != "two" {
		t.Errorf("deployed again: %q", body)
	}
	if h := history(t, alice, "guest"); len(h) != 4 || h[3].Outcome != "serving" || h[2].Note != "rollback to 1" {
		t.Errorf("history: %+v", h)
	}
	refused(t, alice.Ctl("rollback", "guest", "--to", "9"), "not remembered", "peerctl history guest")
	if audit := bob.Must("audit", "-o", "json"); !strings.Contains(audit, `"update"`) {
		t.Error("the audit log does not show the updates")
	}
}

// A rollback is allowed or refused by the grant of now, not by that of then.
func TestRollbackIsJudgedAnew(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.Peer("bob")
	m.Lend(bob, alice)
	for _, text := range []string{"one", "two"} {
		deploy(t, alice, testmesh.Tiny(t, text), "--peer", "bob", "--name", "guest")
	}
	bob.Must("peers", "allow", "alice", "--images", "nginx")
	refused(t, alice.Ctl("rollback", "guest"), "bob refused", "[grant.images]")
	if h := history(t, alice, "guest"); len(h) != 2 || h[1].Outcome != "serving" {
		t.Errorf("history: %+v", h)
	}
	bob.Must("peers", "allow", "alice", "--images", "any")
	// A module that bob has dropped since comes from alice again, as long as she has it.
	drop := func(n *testmesh.Node) {
		file := filepath.Join(n.Home, "modules", strings.TrimPrefix(history(t, alice, "guest")[0].Digest, "sha256:")+".wasm")
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	drop(bob)
	alice.Must("rollback", "guest", "--to", "1")
	if h := history(t, bob, "guest"); len(h) != 3 || h[2].By != "alice" {
		t.Errorf("bob's history: %+v", h)
	}
	alice.Must("rollback", "guest")
	drop(bob)
	drop(alice)
	refused(t, alice.Ctl("rollback", "guest", "--to", "1"), "bob", "module")
}
