package security

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"peercompute/pkg/driver/docker/dockertest"
	"peercompute/pkg/mesh"
	"peercompute/pkg/testkit"
	"peercompute/pkg/wire"
	"peercompute/test/internal/testmesh"
)

// What the griefer's containers may use, and what is kept of what they write.
const (
	bombMemory = 128 << 20
	bombDisk   = 32 << 20
	keptLog    = 2 * 8 << 20 // two files
)

// One peer's containers do the worst they can beside another's, which answers visitors
// all the while. Each is held at its caps, and every visitor is answered (test plan, V5).
func TestBombs(t *testing.T) {
	for _, need := range []string{"docker", "root", "linux"} {
		testkit.Need(t, need)
	}
	image := dockertest.Image(t, "testdata/bomb")
	server := dockertest.Image(t, filepath.Join(testmesh.ModuleRoot(t), "examples", "hello-container"))
	m := testmesh.New(t)
	alice, bob, gw := m.Trio()
	carol := m.Peer("carol")
	m.Lend(bob, carol)
	url := strings.TrimSpace(carol.Must("deploy", server, "--peer", "bob", "--name", "shop", "--port", "8080", "--publish"))
	v := &visitor{web: m.Web(gw), url: url + "/healthz"}
	v.visit(t, time.Second) // warm

	for _, b := range []struct {
		name  string
		tried func(usage) bool // it has come as far as it may; nil = its log says so
		held  func(t *testing.T, used usage, log func(pattern string) int64)
	}{
		{"fork", func(u usage) bool { return u.pids >= mesh.DefaultPIDs*9/10 }, func(t *testing.T, used usage, _ func(string) int64) {
			if used.pids > mesh.DefaultPIDs {
				t.Errorf("%d processes, want at most %d", used.pids, mesh.DefaultPIDs)
			}
		}},
		{"memory", func(u usage) bool { return u.memory >= bombMemory*9/10 }, nil},
		{"cpu", nil, func(t *testing.T, used usage, _ func(string) int64) {
			if used.cores > 1.1 {
				t.Errorf("%.2f cores, want at most the one that it shares", used.cores)
			}
		}},
		{"disk", nil, func(t *testing.T, used usage, log func(string) int64) {
			if n := log(`wrote (\d+) bytes to /tmp`); n < bombDisk*9/10 || n > bombDisk {
				t.Errorf("%d bytes of scratch, want up to %d", n, bombDisk)
			}
			if n := log(`wrote (\d+) bytes in all`); n > 2*bombDisk { // as much of shared memory
				t.Errorf("%d bytes could be written, want at most %d", n, 2*bombDisk)
			}
		}},
		{"inode", nil, func(t *testing.T, used usage, log func(string) int64) {
			for _, dir := range []string{"/dev/shm", "/tmp"} {
				if n := log(`made (\d+) files in ` + dir); n < bombDisk/4096*9/10 || n > bombDisk/4096 {
					t.Errorf("%d files in %s, want up to %d", n, dir, bombDisk/4096)
				}
			}
		}},
		{"log", func(u usage) bool { return u.log >= keptLog*9/16 }, func(t *testing.T, used usage, _ func(string) int64) { // one file is full
			if used.log > keptLog*9/8 {
				t.Errorf("%d bytes of log, want at most %d", used.log, keptLog)
			}
		}},
	} {
		t.Run(b.name, func(t *testing.T) {
			id := strings.TrimSpace(alice.Must("deploy", image, "--peer", "bob", "--name", b.name,
				"--memory", fmt.Sprint(bombMemory), "--disk", fmt.Sprint(bombDisk), "--", b.name))
			v.compare(t)
			box := bob.Containers()[mesh.WorkloadID(id)].ID
			var used usage
			within(t, 2*time.Minute, "it to come to its caps", func() bool {
				used = use(t, box)
				return b.tried == nil || b.tried(used)
			})
			t.Logf("%+v", used)
			log := func(pattern string) (n int64) {
				within(t, time.Minute, pattern, func() (found bool) {
					n, found = number(pattern, alice.Must("logs", b.name))
					return found
				})
				return n
			}
			if b.held != nil {
				b.held(t, used, log)
			}
			if used.memory > bombMemory+1<<20 { // the kernel takes some at a time
				t.Errorf("%d bytes of memory, want at most %d", used.memory, bombMemory)
			}
			var s mesh.Status
			within(t, time.Minute, "it to be held for what it does: "+heldFor[b.name], func() bool {
				s = parse[struct{ Status mesh.Status }](t, alice.Must("inspect", b.name, "-o", "json")).Status
				return (s.Held == "") == (heldFor[b.name] == "") && strings.Contains(s.Held, heldFor[b.name])
			})
			if s.State != mesh.Running {
				t.Errorf("it is %s: it did not outlive its caps, so it hardly tried them", s.State)
			}
			alice.Must("rm", "-f", b.name)
		})
	}
	t.Run("killed", func(t *testing.T) {
		alice.Must("deploy", image, "--peer", "bob", "--name", "eater", "--memory", "64M", "--restart", "no", "--", "eat")
		within(t, time.Minute, "the eater to be killed", func() bool {
			s := parse[struct{ Status mesh.Status }](t, alice.Must("inspect", "eater", "-o", "json")).Status
			if s.State.Final() && s.Reason != "killed: memory 64 MiB" {
				t.Fatalf("it is %s: %q", s.State, s.Reason)
			}
			return s.State.Final()
		})
		if list := alice.Must("ps"); !strings.Contains(list, "killed: memory 64 MiB") {
			t.Errorf("ps says\n%s", list)
		}
		alice.Must("rm", "-f", "eater")
	})
	t.Run("spam", func(t *testing.T) {
		const perMinute = 120
		// A program that only asks: what a peerd and an engine of the griefer's would cost
		// is not this machine's to bear.
		mallory := testmesh.NewActor(t, bob.Addrs()...)
		bob.Must("peers", "add", mallory.Key.ID.String(), "--name", "mallory", "--allow", "deploy", "--requests", fmt.Sprint(perMinute, "/min"), "--memory", "64M")
		refused := map[string]int{}
		ask := func() {
			err := mallory.Requests.Do(t.Context(), bob.ID(), wire.VerbDeploy, wire.Deploy{Spec: mesh.Spec{
				Name: "spam", Runtime: mesh.Container, Image: "none/such:1", Resources: mesh.Resources{Memory: 1 << 30},
			}}, nil)
			rule := "none"
			if err != nil {
				rule = mesh.AsError(err).Rule
			}
			refused[rule]++
		}
		for range 2 * perMinute { // what the grant lets through at once
			if ask(); refused["grant.requests"] > 0 {
				break
			}
		}
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			const mean = time.Minute / (10 * perMinute)
			for {
				select {
				case <-stop:
					return
				case now := <-time.After(time.Duration(rand.ExpFloat64() * float64(mean))): // it keeps no step with visitors
					if goesOff(now) {
						ask()
					}
				}
			}
		})
		v.compare(t)
		close(stop)
		wg.Wait()
		t.Log(refused)
		if len(refused) != 2 || refused["grant.memory"] == 0 || refused["grant.requests"] == 0 {
			t.Errorf("refused by %v, want first by the grant's memory, then by its requests", refused)
		}
	})
}

// heldFor is what bombs are slowed down for.
var heldFor = map[string]string{"memory": "killed for memory", "log": "output"}

// usage is what the engine says of a container.
type usage struct {
	pids, memory int64 // at most, of a few looks
	cores        float64
	log          int64 // bytes on disk
}

func use(t *testing.T, id string) (u usage) {
	t.Helper()
	cli := dockertest.Client(t)
	look := func() (s container.StatsResponse) {
		answer, err := cli.ContainerStatsOneShot(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if err := json.NewDecoder(answer.Body).Decode(&s); err != nil {
			t.Fatal(err)
		}
		u.pids = max(u.pids, int64(s.PidsStats.Current))
		u.memory = max(u.memory, int64(s.MemoryStats.Usage), int64(s.MemoryStats.MaxUsage))
		return s
	}
	first := look()
	last := first
	for end := time.Now().Add(2 * span); time.Now().Before(end); time.Sleep(span / 10) {
		last = look()
	}
	u.cores = float64(last.CPUStats.CPUUsage.TotalUsage-first.CPUStats.CPUUsage.TotalUsage) / float64(last.Read.Sub(first.Read))
	box, err := cli.ContainerInspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(box.LogPath + "*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no log at %s: %v", box.LogPath, err)
	}
	for _, f := range files {
		if st, err := os.Stat(f); err == nil {
			u.log += st.Size()
		}
	}
	return u
}

// Bombs go off in every second span of the wall clock, so that what they do to others
// is measured against the spans between, on a machine that does other things too.
const (
	span    = 400 * time.Millisecond // see testdata/bomb
	settles = span / 8               // of each span that are not counted
	spans   = 40
	pacing  = 2 * time.Millisecond
)

func goesOff(now time.Time) bool { return now.UnixMilli()/span.Milliseconds()%2 == 1 }

// visitor asks for one URL again and again.
type visitor struct {
	web *http.Client
	url string
}

// visit asks for so long, at a steady pace, and returns how long each answer took
// beside what goes off and in between.
func (v *visitor) visit(t *testing.T, long time.Duration) (beside, between []time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(pacing)
	defer tick.Stop()
	for end := time.Now().Add(long); time.Now().Before(end); <-tick.C {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		res, err := v.web.Do(req)
		if err != nil {
			t.Errorf("a visitor got no answer: %v", err)
			continue
		}
		_, err = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		took := time.Since(began)
		if err != nil || res.StatusCode != http.StatusNoContent {
			t.Errorf("a visitor got %s, %v", res.Status, err)
		}
		switch off := goesOff(began); {
		case off != goesOff(began.Add(-settles)):
		case off:
			beside = append(beside, took)
		default:
			between = append(between, took)
		}
	}
	return beside, between
}

// compare measures what goes off does to the visitors.
func (v *visitor) compare(t *testing.T) {
	t.Helper()
	beside, between := v.visit(t, time.Duration(max(scale(spans), 2))*span)
	at := func(took []time.Duration, percent int) time.Duration {
		if len(took) == 0 {
			return 0
		}
		slices.Sort(took)
		return took[len(took)*percent/100]
	}
	ratio := float64(at(beside, 99)) / float64(max(at(between, 99), 1))
	t.Logf("an answer beside it: p50 %s p99 %s (of %d); between: p50 %s p99 %s (of %d): %.2f times",
		at(beside, 50), at(beside, 99), len(beside), at(between, 50), at(between, 99), len(between), ratio)
	if at(beside, 50) > 10*at(between, 50) && at(beside, 50) > 100*time.Millisecond { // the figure is 1.5 of p99; the rest is for busy machines
		t.Errorf("half of the answers beside it take %s and more, otherwise %s", at(beside, 50), at(between, 50))
	}
	figure(t, "v5_p99_ratio", ratio)
	figure(t, "v5_p99_ms", float64(at(beside, 99))/1e6)
}

// number is what the pattern finds in a text.
func number(pattern, text string) (n int64, found bool) {
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		return 0, false
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	return n, err == nil
}

func parse[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("not the JSON that was promised: %v\n%s", err, text)
	}
	return v
}
