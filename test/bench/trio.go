package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// trio is the product at work: alice deploys on bob, who publishes through gw.
type trio struct {
	bin            string
	alice, bob, gw daemon
	public         string // HOST:PORT of the gateway
}

// daemon is one node of it.
type daemon struct {
	*process
	home, addr string // addr: multiaddr ending in /p2p/ID
}

// product is the three nodes, started and paired once.
func (b *bench) product(ctx context.Context) (*trio, error) {
	if b.mesh == nil {
		b.mesh = &trio{bin: b.bin}
		b.meshErr = b.startTrio(ctx, b.mesh)
	}
	return b.mesh, b.meshErr
}

func (b *bench) startTrio(ctx context.Context, t *trio) error {
	for _, n := range []struct {
		to            *daemon
		name, program string
	}{{&t.alice, "alice", "peerd"}, {&t.bob, "bob", "peerd"}, {&t.gw, "gw", "peergate"}} {
		port, err := b.port()
		if err != nil {
			return err
		}
		home := filepath.Join(b.dir, n.name)
		args := []string{"run", "--home", home, "--listen", "/ip4/127.0.0.1/tcp/" + port, "--listen", "/ip4/127.0.0.1/udp/" + port + "/quic-v1"}
		if n.program == "peergate" {
			if port, err = b.port(); err != nil {
				return err
			}
			t.public = "127.0.0.1:" + port
			args = append(args, "--domain", "localhost", "--http", t.public, "--rate-ip", "0", "--rate-name", "0")
		}
		p, err := b.start(n.name, exec.Command(filepath.Join(b.bin, n.program), args...))
		if err != nil {
			return fmt.Errorf("%w (build first: make build)", err)
		}
		*n.to = daemon{process: p, home: home}
	}
	for _, d := range []*daemon{&t.alice, &t.bob, &t.gw} {
		if err := t.whoami(ctx, d); err != nil {
			return err
		}
	}
	for _, c := range []struct {
		at   daemon
		args []string
	}{
		{t.alice, []string{t.bob.addr, "--name", "bob"}},
		{t.bob, []string{t.alice.addr, "--name", "alice", "--allow", "deploy", "--cpus", "16", "--memory", "8G", "--disk", "8G", "--max-workloads", "50", "--requests", "1000000/min"}},
		{t.bob, []string{t.gw.addr, "--name", "gw", "--allow", "route"}},
		{t.gw, []string{t.bob.addr, "--name", "bob", "--allow", "publish", "--max-names", "50", "--requests", "1000000/min"}},
	} {
		if _, err := t.ctl(ctx, c.at, append([]string{"peers", "add"}, c.args...)...); err != nil {
			return err
		}
	}
	return nil
}

func (t *trio) whoami(ctx context.Context, d *daemon) error {
	return eventually(ctx, 20*time.Second, func() error {
		out, err := t.ctl(ctx, *d, "whoami", "-o", "json")
		if err != nil {
			return err
		}
		var who struct{ Addrs []string }
		if err := decode(out, &who); err != nil {
			return err
		}
		for _, a := range who.Addrs {
			if strings.Contains(a, "/tcp/") {
				d.addr = a
				return nil
			}
		}
		return errors.New(d.name + " says no TCP address")
	})
}

// ctl runs peerctl against a node.
func (t *trio) ctl(ctx context.Context, at daemon, args ...string) (string, error) {
	return output(ctx, nil, filepath.Join(t.bin, "peerctl"), append([]string{"--home", at.home}, args...)...)
}

// deploy has alice deploy on bob and publish, and returns where it answers.
func (t *trio) deploy(ctx context.Context, what, name string, args ...string) (target, error) {
	out, err := t.ctl(ctx, t.alice, append([]string{"deploy", what, "--peer", "bob", "--name", name, "--publish"}, args...)...)
	if err != nil {
		return target{}, err
	}
	u, err := url.Parse(strings.TrimSpace(out))
	if err != nil || u.Host == "" {
		return target{}, fmt.Errorf("deploy printed %q instead of a URL", out)
	}
	return target{t.public, u.Host}, nil
}

func (t *trio) remove(ctx context.Context, name string) error {
	_, err := t.ctl(ctx, t.alice, "rm", "-f", name)
	return err
}

// empty removes every workload, so that no container outlives the bench.
func (t *trio) empty(ctx context.Context) error {
	if t.bob.addr == "" {
		return nil
	}
	out, err := t.ctl(ctx, t.bob, "ps", "-o", "json")
	if err != nil {
		return err
	}
	var all []struct{ ID string }
	if err := decode(out, &all); err != nil {
		return err
	}
	var errs []error
	for _, w := range all {
		_, err := t.ctl(ctx, t.bob, "rm", "-f", w.ID)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
