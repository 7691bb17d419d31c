package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// lockedBuilder is a strings.Builder for two goroutines.
type lockedBuilder struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuilder) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuilder) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// await waits until a text was written.
func (l *lockedBuilder) await(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(l.String(), text); {
		if time.Now().After(deadline) {
			t.Errorf("it does not say %q: %q", text, l.String())
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// startForward runs port-forward until the test ends and returns where it listens.
func startForward(t *testing.T, home string, said io.Writer, args ...string) (addr string, end func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := testStdio()
	out, w := io.Pipe()
	s.out, s.err = w, said
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, append([]string{"--home", home, "port-forward"}, args...), s)
		w.Close()
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		cancel()
		t.Fatalf("it did not say where it listens: exit %d", <-code)
	}
	return strings.TrimSpace(line), func() int { cancel(); return <-code }
}

func TestPortForward(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	defer goleak.VerifyNone(t, ignore)
	t.Run("", func(t *testing.T) {
		_, home := newFake(t)
		if code := run(context.Background(), []string{"--home", home, "deploy", "hello:1"}, testStdio()); code != exitOK {
			t.Fatalf("deploy: exit %d", code)
		}
		var said lockedBuilder
		addr, end := startForward(t, home, &said, "hello", "0:80")
		if host, _, err := net.SplitHostPort(addr); err != nil || host != "127.0.0.1" {
			t.Fatalf("it listens on %q, want the loopback alone", addr)
		}
		talk := func(text string) (string, error) {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				return "", err
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			// It may be reset at any point.
			_, err = io.WriteString(conn, text)
			if err == nil {
				err = conn.(*net.TCPConn).CloseWrite()
			}
			b, readErr := io.ReadAll(conn)
			return string(b), errors.Join(err, readErr)
		}
		for range 3 {
			if got, err := talk("good morning"); err != nil || got != "GOOD MORNING" {
				t.Errorf("got %q, %v", got, err)
			}
		}
		// What was cut must not look as if it had ended.
		if got, err := talk("cut me"); err == nil {
			t.Errorf("cut off: got %q and a clean end", got)
		}
		said.await(t, "the workload is stopping")
		if code := end(); code != exitInterrupted {
			t.Errorf("exit %d, want %d", code, exitInterrupted)
		}

		addr, end = startForward(t, home, &said, "hello", "0:81")
		if got, err := talk("hello"); got != "" || err == nil {
			t.Errorf("a closed port: got %q, %v; want a reset", got, err)
		}
		said.await(t, "nothing answers on port 81")
		end()
	})
}

func TestParsePorts(t *testing.T) {
	for _, c := range []struct {
		in            string
		local, remote uint16
		bad           bool
	}{
		{"", 0, 0, false},
		{"8080", 8080, 0, false},
		{"8080:80", 8080, 80, false},
		{":80", 0, 80, false},
		{"0:80", 0, 80, false},
		{"x", 0, 0, true},
		{"1:2:3", 0, 0, true},
		{"70000:1", 0, 0, true},
		{"-1:80", 0, 0, true},
	} {
		local, remote, err := parsePorts(c.in)
		if local != c.local || remote != c.remote || (err != nil) != c.bad {
			t.Errorf("%q: got %d, %d, %v", c.in, local, remote, err)
		}
	}
}
