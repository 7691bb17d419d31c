package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
)

// BenchmarkProxy asks for small and large bodies over kept connections, straight
// from the workload and through gateway and tunnel, in turn. All parts share one
// process here, so only the ratio of two lines means something.
func BenchmarkProxy(b *testing.B) {
	workload := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		n, _ := strconv.ParseInt(req.URL.Path[1:], 10, 64)
		w.Header().Set("Content-Length", req.URL.Path[1:])
		_, _ = io.CopyN(w, zeros{}, n)
	}))
	defer workload.Close()
	r := newRigTo(b, workload.Listener.Addr().String())
	ways := []struct{ name, addr string }{{"direct", workload.Listener.Addr().String()}, {"gateway", r.addr}}
	for _, size := range []int{100, 1 << 20} {
		for _, conns := range []int{1, 16, 64} {
			for _, way := range ways {
				b.Run(fmt.Sprintf("%dB/%d/%s", size, conns, way.name), func(b *testing.B) {
					b.SetBytes(int64(size))
					load(b, way.addr, fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: %s\r\n\r\n", size, r.host), size, conns)
				})
			}
		}
	}
}

// load sends b.N requests over conns connections.
func load(b *testing.B, addr, request string, size, conns int) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range conns {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		n := b.N / conns
		if i < b.N%conns {
			n++
		}
		wg.Go(func() {
			defer c.Close()
			in := bufio.NewReaderSize(c, 64<<10)
			for range n {
				if _, err := io.WriteString(c, request); err != nil {
					b.Error(err)
					return
				}
				res, err := http.ReadResponse(in, nil)
				if err != nil {
					b.Error(err)
					return
				}
				if got, err := io.Copy(io.Discard, res.Body); got != int64(size) || err != nil {
					b.Errorf("got %d bytes, %v", got, err)
					return
				}
			}
		})
	}
}
