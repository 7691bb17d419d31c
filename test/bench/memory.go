package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// measureMemory reads the resident memory of the daemons: paired, connected, and
// with nothing to do.
func measureMemory(ctx context.Context, b *bench, out *Section) error {
	if _, err := os.Stat("/proc/self/status"); err != nil {
		return skipped("this system has no /proc")
	}
	t, err := b.product(ctx)
	if err != nil {
		return err
	}
	settle := 10 * time.Second
	if b.quick {
		settle = 2 * time.Second
	}
	select {
	case <-time.After(settle):
	case <-ctx.Done():
		return ctx.Err()
	}
	for _, d := range []struct {
		of    daemon
		what  string
		limit float64
	}{{t.alice, "peerd that deploys", 50}, {t.bob, "peerd that lends", 50}, {t.gw, "peergate", 40}} {
		var s series
		for range 5 {
			mb, err := resident(d.of.pid())
			if err != nil {
				return err
			}
			s.add("RSS", mb)
			select {
			case <-time.After(200 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		row := s.row(d.what, "MB").want("RSS", fmt.Sprintf("< %.0f MB", d.limit), func(c Cell) bool { return c.Median < d.limit })
		note("    %s %.1f MB", d.what, row.Cells[0].Median)
		out.Rows = append(out.Rows, row)
	}
	out.Notes = append(out.Notes, fmt.Sprintf("VmRSS %s after they were paired, in millions of bytes; most of it is the program itself, mapped from its file", settle))
	return nil
}

// resident is a process's memory in millions of bytes.
func resident(pid int) (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			return float64(kib) * 1024 / 1e6, err
		}
	}
	return 0, errors.New("the process says no VmRSS")
}
