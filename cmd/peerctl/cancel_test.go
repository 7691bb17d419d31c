package main

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestInterrupt presses Ctrl-C in the middle of everything that can last.
func TestInterrupt(t *testing.T) {
	for _, c := range []struct {
		name   string
		args   []string
		before []string
		after  string // what is said before Ctrl-C; empty: once the node waits
		says   string // on stderr
		silent bool
	}{
		{name: "logs", before: []string{"deploy", "hello:1"}, args: []string{"logs", "-f", "hello"}, silent: true},
		{name: "deploy", args: []string{"deploy", "slow:1"}, after: "starting", says: "next: slow stays deployed; remove it with: peerctl rm -f slow"},
		{name: "deploy json", args: []string{"deploy", "slow:1", "-o", "json"}, says: `{"error":{"kind":"canceled","message":"interrupted"`},
		{name: "exec", before: []string{"deploy", "hello:1"}, args: []string{"exec", "hello", "--", "hang"}, silent: true},
		{name: "cp", before: []string{"deploy", "hello:1"}, args: []string{"cp", "hello:/hang", "-"}, silent: true},
		{name: "top", before: []string{"deploy", "hello:1"}, args: []string{"top", "-o", "json"}, says: `{"error":{"kind":"canceled","message":"interrupted"`},
		{name: "run", args: []string{"run", "testdata/job.wasm", "sleep"}, silent: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			ignore := goleak.IgnoreCurrent()
			defer goleak.VerifyNone(t, ignore)
			t.Run("", func(t *testing.T) {
				n, home := newFake(t)
				s := testStdio()
				if c.before != nil {
					if code := run(context.Background(), append(c.before, "--home", home), s); code != exitOK {
						t.Fatalf("%q: exit %d", c.before, code)
					}
				}
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				said := &trigger{after: c.after, do: cancel}
				s.err = said
				waited := make(chan struct{})
				go func() {
					defer close(waited)
					<-n.waiting
					if c.after == "" {
						cancel()
					}
				}()
				began := time.Now()
				code := run(ctx, append([]string{"--home", home}, c.args...), s)
				if code != exitInterrupted {
					t.Errorf("exit %d, want %d; said %q", code, exitInterrupted, said.String())
				}
				<-waited
				if took := time.Since(began); took > 30*time.Second {
					t.Errorf("took %s to stop", took)
				}
				if !strings.Contains(said.String(), c.says) || c.silent && strings.Contains(said.String(), "error") {
					t.Errorf("said %q, want %q", said.String(), c.says)
				}
			})
		})
	}
}

// trigger does something once it was written a text.
type trigger struct {
	strings.Builder
	after string
	do    func()
}

func (t *trigger) Write(p []byte) (int, error) {
	n, err := t.Builder.Write(p)
	if t.after != "" && strings.Contains(t.String(), t.after) {
		t.do()
	}
	return n, err
}

// TestRunStdinOfUnknownEnd checks that a job which ends does not wait for stdin.
func TestRunStdinOfUnknownEnd(t *testing.T) {
	_, home := newFake(t)
	s := testStdio()
	in, out := io.Pipe()
	defer out.Close()
	s.in = in
	done := make(chan int, 1)
	go func() {
		done <- run(context.Background(), []string{"--home", home, "run", "testdata/job.wasm", "exit", "5"}, s)
	}()
	select {
	case code := <-done:
		if code != 5 {
			t.Errorf("exit %d, want 5", code)
		}
	case <-time.After(time.Minute):
		t.Fatal("still waits for stdin although the job has ended")
	}
}
