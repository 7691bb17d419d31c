package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// bench is what the sections share: a directory, and what was started in it.
type bench struct {
	dir, bin string
	quick    bool
	taken    map[int]bool // ports given out
	started  []*process   // in the order of starting
	mesh     *trio        // once a section needed it
	meshErr  error        // why it could not be started
	image    string       // of the example, once made; ours to remove
}

// rounds is n, or few of them with -quick.
func (b *bench) rounds(n int) int {
	if b.quick {
		return min(n, 2)
	}
	return n
}

// process is a child of ours; what it prints goes to a file.
type process struct {
	name string
	cmd  *exec.Cmd
	log  *os.File
	done chan struct{} // closed when it is gone
}

// start runs cmd until the end of the bench, or stop.
func (b *bench) start(name string, cmd *exec.Cmd) (*process, error) {
	log, err := os.Create(filepath.Join(b.dir, name+".log"))
	if err != nil {
		return nil, err
	}
	cmd.Stderr = log
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us; we stop them in order
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	p := &process{name: name, cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // ProcessState says how it ended
		close(p.done)
	}()
	b.started = append(b.started, p)
	return p, nil
}

// pid is its ID, and that of its process group.
func (p *process) pid() int { return p.cmd.Process.Pid }

// stop asks the process to end, and insists after a while.
func (p *process) stop() error {
	defer p.log.Close()
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not stop and was killed", p.name)
	}
	return nil
}

// end stops everything, the last started first, and removes the image.
func (b *bench) end() error {
	var errs []error
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if b.mesh != nil {
		errs = append(errs, b.mesh.empty(ctx))
	}
	for i := len(b.started) - 1; i >= 0; i-- {
		errs = append(errs, b.started[i].stop())
	}
	if b.image != "" {
		_, err := output(ctx, nil, "docker", "image", "rm", b.image)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (b *bench) printLogs() {
	for _, p := range b.started {
		data, err := os.ReadFile(p.log.Name())
		if err != nil || len(data) == 0 {
			continue
		}
		lines := strings.Split(string(bytes.TrimSpace(data)), "\n")
		note("--- the log of %s ends:\n%s", p.name, strings.Join(lines[max(0, len(lines)-10):], "\n"))
	}
}

// port finds a free TCP port on loopback, below the range that the system hands
// out itself.
func (b *bench) port() (string, error) {
	if b.taken == nil {
		b.taken = map[int]bool{}
	}
	for p := 21000 + os.Getpid()%4000; p < 32000; p += 7 {
		if b.taken[p] {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
		if err != nil {
			continue
		}
		b.taken[p] = true
		return fmt.Sprint(p), l.Close()
	}
	return "", errors.New("no free port between 21000 and 32000")
}

// output runs a program to its end and returns its stdout.
func output(ctx context.Context, stdin io.Reader, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var out, errs strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}

// compile builds a program of this module. env is such as "GOOS=wasip1".
func (b *bench) compile(ctx context.Context, example, file string, env ...string) (string, error) {
	path := filepath.Join(b.dir, file)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	note("    go build %s", file)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "./examples/"+example)
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build %s (is this run from the module's root?): %w\n%s", example, err, out)
	}
	return path, nil
}

// eventually repeats f until it succeeds or the time is up.
func eventually(ctx context.Context, limit time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %w", limit, err)
		}
	}
}

func decode(s string, v any) error { return json.Unmarshal([]byte(s), v) }
