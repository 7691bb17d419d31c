package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"peercompute/pkg/testkit"
	"peercompute/test/internal/testmesh"
)

// pattern yields n bytes without holding them.
type pattern struct{ left int64 }

func (p *pattern) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(b)), p.left))
	for i := range b[:n] {
		b[i] = byte('a' + i%26)
	}
	p.left -= int64(n)
	return n, nil
}

// 400 MiB go up and 64 MiB come down while every process on the way keeps its size.
// This measures, so it does not run beside other tests.
func TestBulkNeedsNoMemory(t *testing.T) {
	testkit.Need(t, "linux")
	if testmesh.Race() {
		t.Skip("the race detector's memory is not the program's")
	}
	const (
		up   = 400 << 20
		down = 64 << 20
		most = 32 << 20 // of growth
	)
	image := container(t)
	m := testmesh.New(t)
	alice, bob, gw := m.Trio()
	web := m.Web(gw)
	web.Timeout = 3 * time.Minute
	w := deploy(t, alice, image, "--peer", "bob", "--name", "box", "--port", "8080", "--publish")
	for range 3 { // what is made on first use is not growth
		do(t, web, http.MethodPost, w.URL+"/upload", &pattern{left: 1 << 20})
		get(t, web, w.URL+"/download?bytes=1048576")
	}
	watched := map[*testmesh.Node]*testmesh.Memory{}
	for _, n := range []*testmesh.Node{alice, bob, gw} {
		watched[n] = testmesh.WatchMemory(t, n.PID())
	}
	began := time.Now()
	_, answer := do(t, web, http.MethodPost, w.URL+"/upload", &pattern{left: up})
	if want := fmt.Sprintf(`"bytes":%d`, up); !strings.Contains(answer, want) {
		t.Errorf("the upload arrived as %s", answer)
	}
	rate := func(n int64, since time.Time) float64 { return float64(n) / (1 << 20) / time.Since(since).Seconds() }
	t.Logf("upload: %.0f MiB/s", rate(up, began))
	began = time.Now()
	res, err := web.Get(fmt.Sprintf("%s/download?bytes=%d", w.URL, down))
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, res.Body)
	res.Body.Close()
	if n != down || err != nil {
		t.Errorf("downloaded %d bytes, %v", n, err)
	}
	t.Logf("download: %.0f MiB/s", rate(down, began))
	for n, mem := range watched {
		grown := mem.Grown(t)
		t.Logf("%s: %.1f MiB, at most %.1f MiB more", n.Name, float64(mem.Before())/(1<<20), float64(grown)/(1<<20))
		if grown >= most {
			t.Errorf("%s grew by %d MiB, want less than %d", n.Name, grown>>20, most>>20)
		}
	}
}

// Small requests get in between eight downloads of 64 MiB. How long they take says
// little on a machine that others use too: `make bench` measures it. Here it counts how
// much of the downloads goes first.
func TestSmallBesideBulk(t *testing.T) {
	const (
		first  = 32 << 20 // of eight downloads, in the median; what is under way is less
		least  = 50
		enough = 1000
		aim    = 20 * time.Second // for enough of them
		limit  = 4 * time.Minute  // for the least
	)
	image := container(t)
	m := testmesh.New(t)
	alice, _, gw := m.Trio()
	web := m.Web(gw)
	w := deploy(t, alice, image, "--peer", "bob", "--name", "box", "--port", "8080", "--publish")
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var moved counter
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.URL+"/download?bytes=67108864", nil)
				if err != nil {
					t.Error(err)
					return
				}
				res, err := web.Do(req)
				if err != nil {
					continue // at the end it is cut
				}
				_, _ = io.Copy(&moved, res.Body)
				res.Body.Close()
			}
		})
	}
	within(t, limit, "the downloads to flow", func() bool { return moved.Load() > 8<<20 })
	began := time.Now()
	var took []time.Duration
	var beside []int64 // bytes of the downloads, for each
	for len(took) < least || len(took) < enough && time.Since(began) < aim {
		at, before := time.Now(), moved.Load()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.URL+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := web.Do(req)
		if err != nil {
			t.Fatalf("a small request, after %d of them within %s: %v", len(took), time.Since(began), err)
		}
		_, err = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK {
			t.Errorf("a small request: %s, %v", res.Status, err)
		}
		took, beside = append(took, time.Since(at)), append(beside, moved.Load()-before)
	}
	all := time.Since(began)
	cancel()
	wg.Wait()
	slices.Sort(took)
	slices.Sort(beside)
	mid := beside[len(beside)/2]
	t.Logf("%d small requests: median %s, p99 %s, worst %s; beside them %.0f MiB/s, %.1f MiB for each", len(took), took[len(took)/2],
		took[len(took)*99/100], took[len(took)-1], float64(moved.Load())/(1<<20)/all.Seconds(), float64(mid)/(1<<20))
	if mid > first {
		t.Errorf("the downloads got %d MiB ahead of a small request, in the median", mid>>20)
	}
}

// counter counts what is written to it.
type counter struct{ atomic.Int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.Add(int64(len(p)))
	return len(p), nil
}
