package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

// measureWasm times the WebAssembly runtime as somebody who uses it meets it. A
// part that fails has a row that says why, and the others are measured still.
func measureWasm(ctx context.Context, b *bench, out *Section) error {
	return measureParts(ctx, b, out, []group{
		{"metering", measureMetering},
		{"wasmtime", measureWasmtime},
		{"deploy → first 200, Go", func(ctx context.Context, b *bench, out *Section) error {
			return measureWasmDeploy(ctx, b, goGuest, out)
		}},
		{"deploy → first 200, C", func(ctx context.Context, b *bench, out *Section) error {
			return measureWasmDeploy(ctx, b, cGuest, out)
		}},
		{"CGI, Go", func(ctx context.Context, b *bench, out *Section) error { return measureCGI(ctx, b, goGuest, out) }},
		{"CGI, C", func(ctx context.Context, b *bench, out *Section) error { return measureCGI(ctx, b, cGuest, out) }},
		{"long-lived server, Go", measureServer},
		{"small jobs", measureJobs},
		{"memory of an idle CGI service", func(ctx context.Context, b *bench, out *Section) error {
			return measureIdle(ctx, b, goGuest, out)
		}},
		{"memory of an idle server", func(ctx context.Context, b *bench, out *Section) error {
			return measureIdle(ctx, b, serverGuest, out)
		}},
	})
}

// group is some rows of a section.
type group struct {
	name string
	run  func(context.Context, *bench, *Section) error
}

func measureParts(ctx context.Context, b *bench, out *Section, all []group) error {
	var errs []error
	for _, p := range all {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		err := p.run(ctx, b, out)
		if err == nil {
			continue
		}
		note("    %s: %v", p.name, err)
		out.Rows = append(out.Rows, without(p.name, err))
		// Not what "skipped" is for: that would hide the rows of the others.
		if skip := skipped(""); !errors.As(err, &skip) {
			errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
		}
	}
	return errors.Join(errs...)
}

// measureJobs runs wordcount as a job on bob, through peerctl and through alice's API
// (which is all that a program does that has many), and natively as a process.
func measureJobs(ctx context.Context, b *bench, out *Section) error {
	t, err := b.product(ctx)
	if err != nil {
		return err
	}
	const ours, api, native = "peerctl run", "API", "native process"
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
	client := control.NewClient(t.alice.home)
	defer client.Close()
	spec, err := jobSpec(ctx, client, module)
	if err != nil {
		return err
	}
	job := func(who string) error {
		if who == api {
			return apiJob(ctx, client, spec, text, answer)
		}
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
	for _, who := range []string{ours, api, native} { // warm up
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
			for _, who := range []string{native, ours, api} {
				began := time.Now()
				if err := atOnce(senders, each, func() error { return job(who) }); err != nil {
					return err
				}
				rate.add(who, float64(senders*each)/time.Since(began).Seconds())
			}
		}
		row := rate.row(fmt.Sprintf("small jobs, %d at once", senders), "jobs/s", native, ours, api)
		if senders > 1 {
			row = row.want(api, "> 200/s", func(c Cell) bool { return c.Median > 200 })
		}
		note("    jobs, %d at once: %.1f/s, through the API %.1f/s", senders, row.cell(ours).Median, row.cell(api).Median)
		out.Rows = append(out.Rows, row)
	}
	out.Notes = append(out.Notes, "a job is one signed request and one instance, three commits to bob's disk and one to alice's, and with peerctl also one process and its reading of the module; what it is compared with is the same program started natively")
	return nil
}

// jobSpec stores a module on a node and says how to run it.
func jobSpec(ctx context.Context, c *control.Client, module string) (mesh.Spec, error) {
	f, err := os.Open(module)
	if err != nil {
		return mesh.Spec{}, err
	}
	defer f.Close()
	m, err := c.UploadModule(ctx, f)
	return mesh.Spec{Name: "wordcount", Runtime: mesh.Wasm, Shape: mesh.Job, Digest: m.Digest}, err
}

func apiJob(ctx context.Context, c *control.Client, spec mesh.Spec, text, answer string) error {
	var out, errs bytes.Buffer
	end, err := c.Run(ctx, control.Run{Peer: "bob", Spec: spec, Whole: true}, control.JobStreams{Stdin: strings.NewReader(text), Stdout: &out, Stderr: &errs})
	if err == nil && (end.Code != 0 || strings.TrimSpace(out.String()) != answer) {
		err = fmt.Errorf("the job says %q and %q, not %q", out.String(), errs.String(), answer)
	}
	return err
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
