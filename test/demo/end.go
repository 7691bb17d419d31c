package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func decode(s string, v any) error { return json.Unmarshal([]byte(s), v) }

// imageName is the demo's container image, made FROM scratch by image.
const imageName = "peercompute-demo/hello:latest"

// image builds the example's image on the engine, if one answers.
func (d *demo) image(ctx context.Context) (string, error) {
	if _, err := exec.LookPath("docker"); err != nil {
		return "", errors.New("there is no docker command")
	}
	ask, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := exec.CommandContext(ask, "docker", "version").Run(); err != nil {
		return "", errors.New("no Docker engine answers")
	}
	dir := filepath.Join(d.dir, "image")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "hello"), "./examples/hello-container")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build the example: %w\n%s", err, out)
	}
	file, err := os.ReadFile("examples/hello-container/Dockerfile")
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), file, 0o644); err != nil {
		return "", err
	}
	img := exec.CommandContext(ctx, "docker", "build", "-q", "-t", imageName, dir)
	img.Env = append(os.Environ(), "DOCKER_BUILDKIT=0")
	if out, err := img.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build the image: %w\n%s", err, out)
	}
	d.built = true
	return imageName, nil
}

// end stops what still runs and leaves nothing behind.
func (d *demo) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	var errs []error
	if alice := d.node("alice"); alice != nil && alice.addr != "" {
		out, err := d.ctl(ctx, "alice", nil, false, "ps", "-o", "json")
		var all []struct{ Name string }
		if err == nil && decode(out, &all) == nil {
			for _, w := range all {
				if _, err := d.ctl(ctx, "alice", nil, false, "rm", "-f", w.Name); err != nil {
					errs = append(errs, err)
				}
			}
		}
	}
	for _, n := range d.nodes {
		errs = append(errs, n.stop())
	}
	if d.built {
		if out, err := exec.CommandContext(ctx, "docker", "image", "rm", imageName).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("cannot remove the demo's image: %w\n%s", err, out))
		}
	}
	return errors.Join(append(errs, os.RemoveAll(d.dir))...)
}

// stop asks a node to end, and insists after a while.
func (n *node) stop() error {
	defer n.log.Close()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return nil // it ended before
	}
	done := make(chan error, 1)
	go func() { done <- n.cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
		return nil
	case <-time.After(20 * time.Second):
		return errors.Join(fmt.Errorf("%s does not stop", n.name), n.cmd.Process.Kill(), <-done)
	}
}

// printLogs shows the end of each node's log, when something failed.
func (d *demo) printLogs() {
	for _, n := range d.nodes {
		data, err := os.ReadFile(n.log.Name())
		if err != nil {
			continue
		}
		lines := strings.Split(string(bytes.TrimSpace(data)), "\n")
		fmt.Fprintf(os.Stderr, "--- %s\n%s\n", n.name, strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
}
