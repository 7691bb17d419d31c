package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"peercompute/pkg/identity"
	"peercompute/pkg/store"
	"peercompute/pkg/trust"
)

// measureTrust times what the trust list, the nonces and a removal cost when there
// are many of them.
func measureTrust(ctx context.Context, b *bench, out *Section) error {
	return measureParts(ctx, b, out, []group{
		{"removal of a peer with 1,000 open streams", measureRevocation},
		{"1,000,000 live nonces", measureNonces},
		{"start with 1,000 peers", measureTrustStart},
	})
}

// measureRevocation runs the benchmark of pkg/member: two nodes, 1,000 streams, and
// the time from the removal until the last of them has ended.
func measureRevocation(ctx context.Context, b *bench, out *Section) error {
	all, err := benchmark(ctx, "./pkg/member", "Revocation", 3, b.rounds(5))
	if err != nil {
		return err
	}
	row := all["ms/revocation"].row("removal of a peer with 1,000 open streams", "ms").
		want(measured, "< 1000 ms", func(c Cell) bool { return c.Max < 1000 })
	out.Rows = append(out.Rows, row)
	return nil
}

// measureNonces runs the benchmark of pkg/admission with a million nonces on disk.
func measureNonces(ctx context.Context, b *bench, out *Section) error {
	all, err := benchmark(ctx, "./pkg/admission", "MillionNonces", 200, b.rounds(3))
	if err != nil {
		return err
	}
	for _, r := range []struct{ unit, name, as string }{
		{"heap-MB", "1,000,000 live nonces, memory", "MB"},
		{"file-MB", "1,000,000 live nonces, state file", "MB"},
		{"open-ms", "1,000,000 live nonces, opened in", "ms"},
		{"decisions/s", "decisions beside them, one sender", "per s"},
	} {
		out.Rows = append(out.Rows, all[r.unit].row(r.name, r.as))
	}
	return nil
}

const measured = "measured" // who a figure is of that has no rival

// benchmark runs one of the module's own benchmarks n times, with so many steps each,
// and returns what it reported, by unit.
func benchmark(ctx context.Context, pkg, name string, steps, n int) (map[string]*series, error) {
	note("    go test -bench %s %s", name, pkg)
	text, err := output(ctx, nil, "go", "test", "-run=^$", "-bench=^Benchmark"+name+"$", fmt.Sprintf("-benchtime=%dx", steps), fmt.Sprintf("-count=%d", n), pkg)
	if err != nil {
		return nil, err
	}
	return reported(text, name)
}

// reported reads the lines that go test -bench printed about one benchmark: its
// name, a count, and pairs of a value and its unit.
func reported(text, name string) (map[string]*series, error) {
	all := map[string]*series{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark"+name) {
			continue
		}
		for i := 2; i+1 < len(f); i += 2 {
			v, err := strconv.ParseFloat(f[i], 64)
			if err != nil {
				return nil, fmt.Errorf("go test -bench printed %q as %s", f[i], f[i+1])
			}
			if all[f[i+1]] == nil {
				all[f[i+1]] = &series{}
			}
			all[f[i+1]].add(measured, v)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("go test -bench printed nothing of %s", name)
	}
	return all, nil
}

// measureTrustStart times peerd from its start to its first answer, with nobody on
// its list and with 1,000 peers there.
func measureTrustStart(ctx context.Context, b *bench, out *Section) error {
	const many = 1000
	var s series
	homes := map[string]string{"no peers": "alone", "1,000 peers": "crowd"}
	for who, dir := range homes {
		home := filepath.Join(b.dir, dir)
		if _, err := b.startOnce(ctx, home); err != nil { // makes key and state file
			return err
		}
		if who == "1,000 peers" {
			note("    trusting %d peers", many)
			if err := trustMany(ctx, home, many); err != nil {
				return err
			}
		}
	}
	for range b.rounds(7) {
		for _, who := range []string{"no peers", "1,000 peers"} {
			took, err := b.startOnce(ctx, filepath.Join(b.dir, homes[who]))
			if err != nil {
				return err
			}
			s.add(who, milliseconds(took))
		}
	}
	out.Rows = append(out.Rows, s.row("peerd, from its start to its first answer", "ms", "no peers", "1,000 peers"))
	return nil
}

// startOnce starts peerd on a home, waits until it answers, and stops it.
func (b *bench) startOnce(ctx context.Context, home string) (time.Duration, error) {
	began := time.Now()
	p, err := b.start(filepath.Base(home), exec.Command(filepath.Join(b.bin, "peerd"), "run", "--home", home, "--listen", "/ip4/127.0.0.1/tcp/0"))
	if err != nil {
		return 0, err
	}
	t := &trio{bin: b.bin}
	err = t.whoami(ctx, &daemon{process: p, home: home})
	took := time.Since(began)
	b.started = b.started[:len(b.started)-1]
	return took, errors.Join(err, p.stop())
}

// trustMany adds n peers to the list of a home where no peerd runs.
func trustMany(ctx context.Context, home string, n int) (err error) {
	key, err := identity.Load(home)
	if err != nil {
		return err
	}
	st, err := store.Open(filepath.Join(home, store.FileName))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	list, err := trust.Open(st, key.ID, time.Now)
	if err != nil {
		return err
	}
	for i := range n {
		_, id, err := newPeer()
		if err != nil {
			return err
		}
		if err := list.Put(ctx, trust.Grant{Peer: id, Name: fmt.Sprintf("peer%d", i), Allow: trust.Deploy}); err != nil {
			return err
		}
	}
	return nil
}
