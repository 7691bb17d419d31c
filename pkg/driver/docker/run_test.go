package docker_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/driver"
	"peercompute/pkg/driver/docker/dockertest"
)

// execIn runs the actor in a container to its end.
func execIn(t *testing.T, task driver.Task, in string, args ...string) (out, errs string, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var o, e bytes.Buffer
	x := driver.Exec{Argv: append([]string{"/program"}, args...), Stdout: &o, Stderr: &e}
	if in != "" {
		x.Stdin = strings.NewReader(in)
	}
	status, err := task.(driver.Execer).Exec(ctx, x)
	if err != nil {
		t.Errorf("%q: %v", args, err)
	}
	return o.String(), e.String(), status
}

func TestExec(t *testing.T) {
	needEngine(t)
	task := start(t, open(t, newNode(t)), workload(spec(dockertest.Image(t, "testdata/actor"), "serve")))
	long := strings.Repeat("0123456789", 100_000)
	if out, errs, status := execIn(t, task, long, "copy", "7"); out != long || errs != "1000000 bytes\n" || status != 7 {
		t.Errorf("copy: %d bytes, %q, status %d", len(out), errs, status)
	}
	rights, _, _ := execIn(t, task, "", "rights")
	for line := range strings.Lines(rights) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.Join(strings.Fields(value), " ")
		switch {
		case strings.HasPrefix(key, "Cap"):
			if strings.Trim(value, "0") != "" {
				t.Errorf("it has capabilities: %s", line)
			}
		case key == "Groups", key == "Uid", key == "Gid":
			if strings.HasPrefix(value+" ", "0 ") || strings.Contains(value, " 0") {
				t.Errorf("it is root, or in its group: %s", line)
			}
		case key == "NoNewPrivs" && value != "1", key == "Seccomp" && value != "2":
			t.Errorf("it is not confined: %s", line)
		}
	}
	if strings.Count(rights, "\n") != 10 {
		t.Errorf("rights: %q", rights)
	}
	if _, _, status := execIn(t, task, "", "print", "1", "0"); status != 0 {
		t.Errorf("status %d", status)
	}
	status, err := task.(driver.Execer).Exec(t.Context(), driver.Exec{Argv: []string{"/nowhere"}, Stdout: io.Discard, Stderr: io.Discard})
	if err == nil && status != 126 && status != 127 {
		t.Errorf("a program that is not there: status %d", status)
	}
}

func TestExecWithATerminal(t *testing.T) {
	needEngine(t)
	task := start(t, open(t, newNode(t)), workload(spec(dockertest.Image(t, "testdata/actor"), "serve")))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sizes := make(chan driver.WindowSize, 1)
	sizes <- driver.WindowSize{Columns: 91, Rows: 17}
	out, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := task.(driver.Execer).Exec(ctx, driver.Exec{Argv: []string{"/program", "size"}, TTY: true, Stdout: w, Size: sizes})
		w.CloseWithError(err)
		ended <- err
	}()
	seen := ""
	buf := make([]byte, 256)
	for _, want := range []string{"91 x 17 true", "40 x 10 true"} {
		for !strings.Contains(seen, want) {
			n, err := out.Read(buf)
			if err != nil {
				t.Fatalf("it ended before it had the size %s: %q, %v", want, seen, err)
			}
			seen += string(buf[:n])
		}
		select {
		case sizes <- driver.WindowSize{Columns: 40, Rows: 10}:
		default:
		}
	}
	cancel()
	out.Close()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
}

// Who asked goes away: the program is killed with what it started, however it ignores
// signals, and also while it waits for somebody to read what it writes.
func TestExecEndsWithItsContext(t *testing.T) {
	needEngine(t)
	d := open(t, newNode(t))
	task := start(t, d, workload(spec(dockertest.Image(t, "testdata/actor"), "serve")))
	for _, part := range []string{"linger", "spawn", "flood"} {
		ctx, cancel := context.WithCancel(t.Context())
		out, w := io.Pipe()
		in, _ := io.Pipe()
		ended := make(chan error, 1)
		go func() {
			_, err := task.(driver.Execer).Exec(ctx, driver.Exec{Argv: []string{"/program", part}, Stdin: in, Stdout: w, Stderr: io.Discard})
			ended <- err
		}()
		if _, err := io.ReadFull(out, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		cancel()
		out.Close() // as whoever carries the output does
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("%s: it ended with %v", part, err)
		}
		in.Close()
		// The workload itself, and the one that counts.
		if out, _, _ := execIn(t, task, "", "processes"); out != "2\n" {
			t.Errorf("%s: %s processes are left", part, strings.TrimSpace(out))
		}
	}
	if _, err := task.Stats(t.Context()); err != nil {
		t.Errorf("the workload itself: %v", err)
	}
}

// A program that an earlier peerd was killed beside is ended when its container is
// found again.
func TestExecOfAnEarlierPeerd(t *testing.T) {
	needEngine(t)
	node := newNode(t)
	task := start(t, open(t, node), workload(spec(dockertest.Image(t, "testdata/actor"), "serve")))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, w := io.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = task.(driver.Execer).Exec(ctx, driver.Exec{Argv: []string{"/program", "linger"}, Stdout: w, Stderr: io.Discard})
		w.Close()
	}()
	if _, err := io.ReadFull(out, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, out)
	found, err := open(t, node).Adopt(t.Context())
	if err != nil || len(found) != 1 {
		t.Fatalf("adopted %d, %v", len(found), err)
	}
	<-ended
	out.Close()
	if out, _, _ := execIn(t, found[0], "", "processes"); out != "2\n" {
		t.Errorf("%s processes are left", strings.TrimSpace(out))
	}
}
