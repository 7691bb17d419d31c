package mux

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestWindows lets two ends write and read on several streams in any order, and
// checks after each step what both believe of the windows: the writer's is what
// the reader grants, what the reader holds is what was written and not read, and
// never is more held than was granted.
func TestWindows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := net.Pipe()
		client, server := New(a, Config{Client: true}), New(b, Config{})
		defer client.Close()
		defer server.Close()
		type half struct {
			from, to *Stream
			unread   []byte // written and not read
			closed   bool
		}
		var halves []*half
		next := byte(0)
		open := func() {
			st, err := client.Open(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			in, err := server.Accept()
			if err != nil {
				t.Fatal(err)
			}
			halves = append(halves, &half{from: st, to: in}, &half{from: in, to: st})
		}
		open()
		pick := func(t *rapid.T) *half { return rapid.SampledFrom(halves).Draw(t, "half") }
		t.Repeat(map[string]func(*rapid.T){
			"open": func(t *rapid.T) {
				if len(halves) > 8 {
					t.Skip()
				}
				open()
			},
			"write": func(t *rapid.T) {
				h := pick(t)
				n := rapid.OneOf(rapid.IntRange(0, 3000), rapid.IntRange(0, 2*initialWindow)).Draw(t, "bytes")
				b := make([]byte, n)
				for i := range b {
					b[i] = next
					next++
				}
				// It takes what the window has room for, and then waits.
				_ = h.from.SetWriteDeadline(time.Now().Add(time.Millisecond))
				wrote, err := h.from.Write(b)
				switch {
				case h.closed:
					if err == nil && n > 0 || wrote > 0 {
						t.Fatalf("wrote %d to a closed stream", wrote)
					}
				case err == nil && wrote != n, err != nil && !isTimeout(err):
					t.Fatalf("wrote %d of %d: %v", wrote, n, err)
				}
				h.unread = append(h.unread, b[:wrote]...)
			},
			"read": func(t *rapid.T) {
				h := pick(t)
				b := make([]byte, rapid.IntRange(1, 300_000).Draw(t, "bytes"))
				_ = h.to.SetReadDeadline(time.Now().Add(10 * time.Second))
				if len(h.unread) == 0 && !h.closed {
					_ = h.to.SetReadDeadline(time.Unix(1, 0))
				}
				n, err := h.to.Read(b)
				if !bytes.Equal(b[:n], h.unread[:min(n, len(h.unread))]) {
					t.Fatalf("read %d bytes that were not written like that", n)
				}
				if left := len(h.unread); n == 0 && left > 0 || err == io.EOF && (!h.closed || left > 0) || err != nil && err != io.EOF && !isTimeout(err) {
					t.Fatalf("read %d of %d bytes, %v", n, left, err)
				}
				h.unread = h.unread[n:]
			},
			"close": func(t *rapid.T) {
				h := pick(t)
				if err := h.from.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				h.closed = true
			},
			"": func(t *rapid.T) {
				for _, h := range halves {
					var window, granted, grant, held int64
					for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Microsecond) {
						from, to := &h.from.session.mu, &h.to.session.mu
						from.Lock()
						window = h.from.window
						from.Unlock()
						to.Lock()
						granted, grant, held = h.to.granted, h.to.grant, int64(h.to.held)
						to.Unlock()
						if held > grant || granted < 0 || granted+held > grant {
							t.Fatalf("holds %d of %d, and %d may come", held, grant, granted)
						}
						if window == granted && held == int64(len(h.unread)) || h.closed && held == int64(len(h.unread)) {
							break // nothing is on the way
						}
						if time.Now().After(end) {
							t.Fatalf("the writer's window is %d and the reader's %d; %d are held and %d were written", window, granted, held, len(h.unread))
						}
					}
					if used := grant - granted - held; !h.closed && used >= grant/2 {
						t.Fatalf("%d of %d bytes were read and not granted again", used, grant)
					}
				}
			},
		})
	})
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
