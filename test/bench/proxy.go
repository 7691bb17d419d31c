package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// Who is measured in section a.
const (
	direct    = "direct"
	tunnelled = "gateway"
	contained = "container"
	nginx     = "nginx"
)

// proxyLoad is one row: so many connections that ask for so much.
type proxyLoad struct {
	conns int
	large bool
}

func (l proxyLoad) String() string {
	body := "100 B"
	if l.large {
		body = "1 MiB"
	}
	return fmt.Sprintf("%d × %s", l.conns, body)
}

const largePath = "/download?bytes=1048576"

func (l proxyLoad) path() string {
	if l.large {
		return largePath
	}
	return "/"
}

// subject is a way to a workload, and the processes that it leads through.
type subject struct {
	who string
	target
	through []worker
}

// worker is a group of processes whose time is counted.
type worker struct {
	who   string
	group int
}

// measureProxy compares the ways to one process, the example's server: its own
// address, the gateway and the tunnel, and nginx as a plain local proxy; beside
// them the same program as a container, deployed and published by the product.
func measureProxy(ctx context.Context, b *bench, out *Section) error {
	hello, bare, err := proxySubjects(ctx, b, out)
	if err != nil {
		return err
	}
	const d = time.Second
	rounds := b.rounds(5)
	for _, l := range []proxyLoad{{1, false}, {16, false}, {64, false}, {1, true}, {16, true}, {64, true}} {
		long := d
		if l.large {
			long = 2 * d // with 64 at once the first is whole only when nearly all are
		}
		if err := measureLoad(ctx, out, hello, l, rounds, long, ""); err != nil {
			return err
		}
	}
	for _, l := range []proxyLoad{{1, false}, {64, false}} {
		if err := measureLoad(ctx, out, bare, l, rounds, d, ", bare server"); err != nil {
			return err
		}
	}
	if hasWrk() {
		out.Notes = append(out.Notes, "load of several connections by wrk, of one by the bench itself")
	} else {
		out.Notes = append(out.Notes, "wrk is not installed: all load by the bench itself, which takes more of the processor")
	}
	out.Notes = append(out.Notes, "client, proxy, peer and workload share the same cores; the bare server does nothing but answer, so it shows the whole cost of the way to it")
	return measureBesideBulk(ctx, out, hello, rounds, d)
}

// What the tunnel may cost, as shares of what nginx reaches as a plain local proxy
// in the same run. The design asks for 0.14 ms and 0.6 GB/s on a machine where
// nginx had 0.053 ms and 1.45 GB/s; another machine, or the same one on another
// day, is two to three times slower at both.
const (
	mostLatency = 2.64 // of one connection
	leastBulk   = 0.41 // of 64 × 1 MiB
)

// measureLoad adds the rows of one load.
func measureLoad(ctx context.Context, out *Section, all []subject, l proxyLoad, rounds int, d time.Duration, what string) error {
	var rate, half, most, cost series
	for round := range rounds {
		for _, s := range rotate(all, round) {
			before := s.used()
			got, err := generate(ctx, s.target, l.path(), l.conns, d)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", s.who, l, err)
			}
			for i, after := range s.used() {
				if got.requests == 0 || len(before) == 0 {
					continue
				}
				cost.add(s.through[i].who, float64((after-before[i]).Microseconds())/float64(got.requests))
			}
			note("    %s%s %-9s %8.0f req/s  p50 %.3f ms", l, what, s.who, got.rate(), milliseconds(got.p50))
			if l.large {
				rate.add(s.who, got.gigabytes())
			} else {
				rate.add(s.who, got.rate())
			}
			half.add(s.who, milliseconds(got.p50))
			most.add(s.who, milliseconds(got.p99))
		}
	}
	order := subjects(all)
	unit := "req/s"
	if l.large {
		unit = "GB/s"
	}
	row := rate.row(l.String()+what, unit, order...)
	switch {
	case l == proxyLoad{64, false}:
		row = row.want(tunnelled, "≥ 0.15 of direct", func(c Cell) bool { return c.Ratio >= 0.15 })
	case l == proxyLoad{64, true}:
		row = row.wantBeside(tunnelled, nginx, "≥ 0.41", func(share float64) bool { return share >= leastBulk })
	}
	out.Rows = append(out.Rows, row)
	if l.conns == 1 && !l.large {
		row := half.row(l.String()+what+", p50", "ms", order...).wantBeside(tunnelled, nginx, "≤ 2.64", func(share float64) bool { return share <= mostLatency })
		out.Rows = append(out.Rows, row, most.row(l.String()+what+", p99", "ms", order...))
	}
	if l.conns == 64 && len(cost.who) > 0 {
		unit := "µs a request"
		out.Rows = append(out.Rows, cost.row(l.String()+what+", CPU of", unit, nginx, "peergate", "peer"))
	}
	return nil
}

// used is the processor time of those it leads through; nothing where that is not
// known.
func (s subject) used() []time.Duration {
	out := make([]time.Duration, len(s.through))
	for i, w := range s.through {
		var err error
		if out[i], err = processorTime(w.group); err != nil {
			return nil
		}
	}
	return out
}

// measureBesideBulk times small requests on one connection while eight others
// download without end.
func measureBesideBulk(ctx context.Context, out *Section, all []subject, rounds int, d time.Duration) error {
	const bulk = 8
	var half, most series
	for round := range rounds {
		for _, s := range rotate(all, round) {
			got, err := besideBulk(ctx, s.target, bulk, d)
			if err != nil {
				return fmt.Errorf("%s beside bulk: %w", s.who, err)
			}
			note("    beside bulk %-9s p50 %.2f ms p99 %.2f ms", s.who, milliseconds(got.p50), milliseconds(got.p99))
			half.add(s.who, milliseconds(got.p50))
			most.add(s.who, milliseconds(got.p99))
		}
	}
	name := fmt.Sprintf("100 B beside %d downloads", bulk)
	out.Rows = append(out.Rows,
		half.row(name+", p50", "ms", subjects(all)...).want(tunnelled, "< 5 ms", func(c Cell) bool { return c.Median < 5 }),
		most.row(name+", p99", "ms", subjects(all)...).want(tunnelled, "< 100 ms", func(c Cell) bool { return c.Median < 100 }))
	return nil
}

func besideBulk(ctx context.Context, t target, bulk int, d time.Duration) (sample, error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for range bulk {
		c, err := dial(ctx, t, "/download?bytes=16000000000")
		if err != nil {
			return sample{}, err
		}
		wg.Go(func() {
			defer c.close()
			defer context.AfterFunc(ctx, c.close)()
			_, _ = c.get() // it never gets to the end: it is hung up on
		})
	}
	return generateHere(ctx, t, "/", 1, d)
}

// rotate lets another one begin each round.
func rotate(all []subject, round int) []subject {
	n := round % len(all)
	return slices.Concat(all[n:], all[:n])
}

func subjects(all []subject) []string {
	var out []string
	for _, s := range all {
		out = append(out, s.who)
	}
	return out
}

// proxySubjects starts the servers and the ways to them.
func proxySubjects(ctx context.Context, b *bench, out *Section) (hello, bare []subject, err error) {
	program, err := b.compile(ctx, "hello-container", "hello")
	if err != nil {
		return nil, nil, err
	}
	var ports [2]string
	for i := range ports {
		if ports[i], err = b.port(); err != nil {
			return nil, nil, err
		}
	}
	server, simple := "127.0.0.1:"+ports[0], "127.0.0.1:"+ports[1]
	if _, err := b.start("hello-server", exec.Command(program, "-listen", server, "-name", helloName)); err != nil {
		return nil, nil, err
	}
	p, err := b.play(roleBare, simple)
	if err != nil {
		return nil, nil, err
	}
	if _, err := p.line(); err != nil {
		return nil, nil, err
	}
	hello = []subject{{who: direct, target: target{server, "hello.localhost"}}}
	bare = []subject{{who: direct, target: target{simple, "bare.localhost"}}}
	if _, err := firstAnswer(ctx, hello[0].target, "/"); err != nil {
		return nil, nil, err
	}
	t, err := b.product(ctx)
	if err != nil {
		return nil, nil, err
	}
	ways, err := b.tunnelTo(ctx, t, "bench", server, simple)
	if err != nil {
		return nil, nil, err
	}
	hello, bare = append(hello, ways[0]), append(bare, ways[1])
	if image, err := b.helloImage(ctx); err != nil {
		out.Notes = append(out.Notes, "without a container: "+err.Error())
	} else {
		at, err := t.deploy(ctx, image, "bench-hello", "--port", "8080", "--cpus", fmt.Sprint(runtime.NumCPU()), "--", "-name", helloName)
		if err != nil {
			return nil, nil, err
		}
		hello = append(hello, subject{who: contained, target: at})
	}
	proxies, err := b.startNginx(ctx, server, simple)
	if err != nil {
		out.Notes = append(out.Notes, "without nginx: "+err.Error())
		return hello, bare, nil
	}
	return append(hello, proxies[0]), append(bare, proxies[1]), nil
}

// helloName makes the example's answer to GET / 100 bytes long.
var helloName = strings.Repeat("x", 100-len("hello from : GET /\n"))

// tunnelTo starts a stand-in peer, called name, and has the gateway trust it.
func (b *bench) tunnelTo(ctx context.Context, t *trio, name string, addrs ...string) ([]subject, error) {
	home := filepath.Join(b.dir, name)
	if err := os.Mkdir(home, 0o700); err != nil {
		return nil, err
	}
	p, err := b.play(rolePeer, append([]string{home, t.gw.addr}, addrs...)...)
	if err != nil {
		return nil, err
	}
	id, err := p.line()
	if err != nil {
		return nil, err
	}
	if _, err := t.ctl(ctx, t.gw, "peers", "add", id, "--name", name, "--allow", "publish", "--max-names", "10", "--requests", "1000/min"); err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintln(p.in, "trusted"); err != nil {
		return nil, err
	}
	var out []subject
	through := []worker{{"peergate", t.gw.pid()}, {"peer", p.pid()}}
	for range addrs {
		s, err := p.line()
		if err != nil {
			return nil, err
		}
		u, err := url.Parse(s)
		if err != nil {
			return nil, err
		}
		out = append(out, subject{tunnelled, target{t.public, u.Host}, through})
	}
	return out, nil
}
