package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// measureWasm times the WebAssembly runtime as somebody who uses it meets it.
func measureWasm(ctx context.Context, b *bench, out *Section) error {
	t, err := b.product(ctx)
	if err != nil {
		return err
	}
	hello, err := b.compile(ctx, "hello-wasm", "hello.wasm", "GOOS=wasip1", "GOARCH=wasm")
	if err != nil {
		return err
	}
	if err := measureWasmDeploy(ctx, b, t, hello, out); err != nil {
		return err
	}
	if err := measureWasmRequests(ctx, b, t, hello, out); err != nil {
		return err
	}
	return measureJobs(ctx, b, t, out)
}

func measureWasmDeploy(ctx context.Context, b *bench, t *trio, hello string, out *Section) error {
	const ours = "peerctl"
	var cold, warm series
	for n := range b.rounds(10) + 1 {
		name := fmt.Sprintf("bench-wasm-%d", n)
		began := time.Now()
		at, err := t.deploy(ctx, hello, name)
		if err != nil {
			return err
		}
		if _, err := firstAnswer(ctx, at, "/"); err != nil {
			return err
		}
		took := time.Since(began)
		note("    wasm: first 200 after %.1f ms", milliseconds(took))
		if n == 0 {
			cold.add(ours, milliseconds(took)) // the module is sent and compiled
		} else {
			warm.add(ours, milliseconds(took))
		}
		if err := t.remove(ctx, name); err != nil {
			return err
		}
	}
	out.Rows = append(out.Rows, cold.row("deploy → first 200, new module", "ms"), warm.row("deploy → first 200, known module", "ms"))
	return nil
}

func measureWasmRequests(ctx context.Context, b *bench, t *trio, hello string, out *Section) error {
	const ours = "gateway"
	at, err := t.deploy(ctx, hello, "bench-cgi")
	if err != nil {
		return err
	}
	d := time.Second
	for _, conns := range []int{1, 16} {
		var rate, half series
		for range b.rounds(5) {
			got, err := generateHere(ctx, at, "/", conns, d)
			if err != nil {
				return err
			}
			note("    cgi, %d connections: %.0f req/s", conns, got.rate())
			rate.add(ours, got.rate())
			half.add(ours, milliseconds(got.p50))
		}
		out.Rows = append(out.Rows, rate.row(fmt.Sprintf("CGI, %d connections", conns), "req/s"), half.row(fmt.Sprintf("CGI, %d connections, p50", conns), "ms"))
	}
	if info, err := os.Stat(hello); err == nil {
		out.Notes = append(out.Notes, fmt.Sprintf("every CGI request runs a new, metered instance of a Go program, a module of %.1f MB", float64(info.Size())/1e6))
	}
	return t.remove(ctx, "bench-cgi")
}

// measureJobs runs wordcount as a job on bob, and natively as a process.
func measureJobs(ctx context.Context, b *bench, t *trio, out *Section) error {
	const ours, native = "peerctl run", "native process"
	module, err := b.compile(ctx, "wordcount", "wordcount.wasm", "GOOS=wasip1", "GOARCH=wasm")
	if err != nil {
		return err
	}
	program, err := b.compile(ctx, "wordcount", "wordcount")
	if err != nil {
		return err
	}
	const text = "to be or not to be\n"
	const answer = "1 lines, 6 words, 19 bytes"
	job := func(who string) error {
		name, args := program, []string(nil)
		if who == ours {
			name, args = filepath.Join(t.bin, "peerctl"), []string{"--home", t.alice.home, "run", module, "--peer", "bob"}
		}
		got, err := output(ctx, strings.NewReader(text), name, args...)
		if err == nil && strings.TrimSpace(got) != answer {
			err = fmt.Errorf("the job says %q, not %q", got, answer)
		}
		return err
	}
	for _, who := range []string{ours, native} { // warm up
		if err := job(who); err != nil {
			return err
		}
	}
	each := 10
	if b.quick {
		each = 3
	}
	for _, senders := range []int{1, 4} {
		var rate series
		for range b.rounds(5) {
			for _, who := range []string{native, ours} {
				began := time.Now()
				if err := atOnce(senders, each, func() error { return job(who) }); err != nil {
					return err
				}
				rate.add(who, float64(senders*each)/time.Since(began).Seconds())
			}
		}
		row := rate.row(fmt.Sprintf("small jobs, %d at once", senders), "jobs/s", native, ours)
		note("    jobs, %d at once: %.1f/s", senders, row.cell(ours).Median)
		out.Rows = append(out.Rows, row)
	}
	out.Notes = append(out.Notes, "a job is one peerctl process, one signed request and one instance; what it is compared with is the same program started natively")
	return nil
}

// atOnce runs f each times in as many goroutines as there are senders.
func atOnce(senders, each int, f func() error) error {
	errs := make([]error, senders)
	var wg sync.WaitGroup
	for i := range senders {
		wg.Go(func() {
			for range each {
				if errs[i] = f(); errs[i] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
