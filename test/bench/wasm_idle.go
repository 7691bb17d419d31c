package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// measureIdle compares what one more service that nobody asks costs the lender,
// its workers included, with one more native process that waits. Each service was
// asked once.
func measureIdle(ctx context.Context, b *bench, g guest, out *Section) (err error) {
	if _, err := os.Stat("/proc/self/status"); err != nil {
		return skipped("this system has no /proc")
	}
	const more = 10
	t, err := b.product(ctx)
	if err != nil {
		return err
	}
	module, err := b.module(ctx, g)
	if err != nil {
		return err
	}
	p, addr, err := b.startServer(ctx, serverGuest)
	if err != nil {
		return err
	}
	defer p.cmd.Process.Kill() //nolint:errcheck // it may be gone
	if _, err := firstAnswer(ctx, target{addr, "localhost"}, "/"); err != nil {
		return err
	}
	var with [2]float64
	for n := range more + 1 {
		name := fmt.Sprintf("bench-idle-%d", n)
		at, err := t.deploy(ctx, module, name, g.args...)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, t.remove(ctx, name)) }()
		if _, err := firstAnswer(ctx, at, "/"); err != nil {
			return err
		}
		if n != 0 && n != more {
			continue
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
		if with[min(n, 1)], err = residentTree(t.bob.pid()); err != nil {
			return err
		}
	}
	alone, err := resident(p.pid())
	if err != nil {
		return err
	}
	var s series
	s.add("native process", alone)
	s.add("service", (with[1]-with[0])/more)
	what := "CGI service"
	if len(g.args) > 0 {
		what = "server"
	}
	out.Rows = append(out.Rows, s.row("memory of an idle "+what+", Go", "MB"))
	out.Notes = append(out.Notes, fmt.Sprintf("idle %s: peerd and its workers, VmRSS %.1f MB with one and %.1f MB with %d services of one module", what, with[0], with[1], more+1))
	return nil
}

// residentTree is the memory of a process and all that it started, in millions of
// bytes. What two of them share counts twice.
func residentTree(pid int) (float64, error) {
	sum, err := resident(pid)
	if err != nil {
		return 0, err
	}
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return 0, err
	}
	for _, file := range lists {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for _, f := range strings.Fields(string(data)) {
			child, err := strconv.Atoi(f)
			if err != nil {
				return 0, err
			}
			if mb, err := residentTree(child); err == nil { // else it has ended
				sum += mb
			}
		}
	}
	return sum, nil
}

// listenFile opens a listener to be handed to a child.
func listenFile(addr string) (*os.File, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return l.(*net.TCPListener).File()
}
