package gateway_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// zeros is an endless body.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// heapPeak samples the heap until stop, and returns its peak over what it was.
func heapPeak() (stop func() int64) {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	read := func() int64 {
		metrics.Read(sample)
		return int64(sample[0].Value.Uint64())
	}
	runtime.GC()
	start, peak := read(), int64(0)
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				peak = max(peak, read()-start)
			}
		}
	})
	return func() int64 {
		close(quit)
		wg.Wait()
		return peak
	}
}

// TestMemoryStaysFlat passes 128 MiB up and 64 MiB down. Client, gateway, peer
// and workload are one process here, and all together stay under the bound that
// each of them has.
func TestMemoryStaysFlat(t *testing.T) {
	const up, down, bound = 128 << 20, 64 << 20, 32 << 20
	r := newRig(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodPost {
			n, err := io.Copy(io.Discard, req.Body)
			fmt.Fprint(w, n, err)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(down))
		_, _ = io.CopyN(w, zeros{}, down)
	}))
	r.get("/") // what a first request allocates for good is not growth
	peak := heapPeak()
	req, _ := http.NewRequest(http.MethodPost, r.url("/"), io.LimitReader(zeros{}, up))
	req.ContentLength = up
	if _, body := r.do(req); body != fmt.Sprint(up, nil) {
		t.Errorf("upload: %s", body)
	}
	res, err := r.client.Get(r.url("/"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if n, err := io.Copy(io.Discard, res.Body); n != down || err != nil {
		t.Errorf("download: %d bytes, %v", n, err)
	}
	grown := peak()
	t.Logf("the heap grew by %.1f MiB at most", float64(grown)/(1<<20))
	if grown > bound {
		t.Errorf("the heap grew by %d MiB, over %d", grown>>20, bound>>20)
	}
}

// TestSlowReaderHoldsLittle: a client that hardly reads makes the gateway hold a
// few buffers, however much the workload sends.
func TestSlowReaderHoldsLittle(t *testing.T) {
	r := newRig(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/bulk" {
			_, _ = io.CopyN(w, zeros{}, 1<<30)
		}
	}))
	r.get("/")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	peak := heapPeak()
	for range 4 {
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, r.url("/bulk"), nil)
		res, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
	}
	time.Sleep(500 * time.Millisecond)
	if grown := peak(); grown > 32<<20 {
		t.Errorf("four idle downloads hold %d MiB", grown>>20)
	}
}

// TestSmallBesideBulk: small requests are answered while eight downloads take all
// they can get. What counts is how much of those goes first; the benchmark shows times.
func TestSmallBesideBulk(t *testing.T) {
	r := newRig(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/bulk" {
			_, _ = io.CopyN(w, zeros{}, 1<<40)
			return
		}
		fmt.Fprint(w, "small")
	}))
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var moved counter
	for range 8 {
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, r.url("/bulk"), nil)
		res, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer res.Body.Close()
			_, _ = io.Copy(&moved, res.Body)
		})
	}
	var took []time.Duration
	var beside []int64
	for range 100 {
		begun, before := time.Now(), moved.Load()
		if _, body := r.get("/"); body != "small" {
			t.Fatalf("got %q", body)
		}
		took, beside = append(took, time.Since(begun)), append(beside, moved.Load()-before)
	}
	slices.Sort(took)
	slices.Sort(beside)
	t.Logf("beside eight downloads: median %s, p99 %s; %.1f MiB of them for each", took[50], took[98], float64(beside[50])/(1<<20))
	if beside[50] > 32<<20 {
		t.Errorf("the downloads got %d MiB ahead of a small request, in the median", beside[50]>>20)
	}
}

// TestPipelining: requests that a client sends ahead are answered in order.
func TestPipelining(t *testing.T) {
	r := newRig(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		sum := sha256.New()
		_, _ = io.Copy(sum, req.Body)
		fmt.Fprintf(w, "%s %x", req.URL.Path, sum.Sum(nil)[:4])
	}))
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	for i := range 20 {
		body := fmt.Sprint("body ", i)
		fmt.Fprintf(c, "POST /%d HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s", i, r.host, len(body), body)
	}
	in := bufio.NewReader(c)
	for i := range 20 {
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		got, _ := io.ReadAll(res.Body)
		sum := sha256.Sum256([]byte(fmt.Sprint("body ", i)))
		if want := fmt.Sprintf("/%d %x", i, sum[:4]); string(got) != want {
			t.Errorf("answer %d: %q, want %q", i, got, want)
		}
	}
}

// counter counts what is written to it.
type counter struct{ atomic.Int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.Add(int64(len(p)))
	return len(p), nil
}
