package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// guest is an example that exists as a module and as a native program.
type guest struct {
	language, example string
	args              []string // of deploy
}

var (
	goGuest     = guest{language: "Go", example: "hello-wasm"}
	cGuest      = guest{language: "C", example: "hello-c"}
	serverGuest = guest{language: "Go server", example: "hello-server", args: []string{"--serve"}}
)

// module builds the guest for WebAssembly. It skips where a compiler is missing.
func (b *bench) module(ctx context.Context, g guest) (string, error) {
	if g.language != "C" {
		return b.compile(ctx, g.example, g.example+".wasm", "GOOS=wasip1", "GOARCH=wasm")
	}
	return b.compileC(ctx, "clang", "hello-c.wasm", "--target=wasm32-wasi", "-O2", "-s")
}

// native builds the very same program for this machine.
func (b *bench) native(ctx context.Context, g guest) (string, error) {
	if g.language == "C" {
		return b.compileC(ctx, "cc", "hello-c.native", "-O2", "-s")
	}
	return b.compile(ctx, g.example, g.example+".native")
}

func (b *bench) compileC(ctx context.Context, compiler, file string, args ...string) (string, error) {
	path := filepath.Join(b.dir, file)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if _, err := exec.LookPath(compiler); err != nil {
		return "", skipped(compiler + " is not installed")
	}
	if _, err := output(ctx, nil, compiler, append(args, "-o", path, "examples/hello-c/hello.c")...); err != nil {
		return "", skipped(compiler + " cannot build examples/hello-c (are lld, wasi-libc and libclang-rt-dev-wasm32 installed?): " + err.Error())
	}
	return path, nil
}

// measureWasmDeploy times deploy until the first answer, and beside it what the
// command takes when all it does is to start, or to start and ask its own node.
func measureWasmDeploy(ctx context.Context, b *bench, g guest, out *Section) error {
	const ours = "peerctl"
	t, err := b.product(ctx)
	if err != nil {
		return err
	}
	module, err := b.module(ctx, g)
	if err != nil {
		return err
	}
	var cold, warm, start, local series
	for n := range b.rounds(10) + 1 {
		for _, c := range []struct {
			to      *series
			command string
		}{{&start, "version"}, {&local, "whoami"}} {
			began := time.Now()
			if _, err := t.ctl(ctx, t.alice, c.command); err != nil {
				return err
			}
			c.to.add(ours, milliseconds(time.Since(began)))
		}
		took, err := wasmDeployOnce(ctx, t, g, module, fmt.Sprintf("bench-wasm-%d", n))
		if err != nil {
			return err
		}
		note("    %s: first 200 after %.1f ms", g.language, milliseconds(took))
		if n == 0 {
			cold.add(ours, milliseconds(took)) // the module is sent and compiled
		} else {
			warm.add(ours, milliseconds(took))
		}
	}
	name := "deploy → first 200, " + g.language
	out.Rows = append(out.Rows,
		cold.row(name+", new module", "ms"),
		warm.row(name+", known module", "ms").want(ours, "< 20 ms", func(c Cell) bool { return c.Median < 20 }),
		start.row("  of it: peerctl starts (peerctl version)", "ms"),
		local.row("  of it: peerctl starts and asks its node (peerctl whoami)", "ms"))
	return nil
}

func wasmDeployOnce(ctx context.Context, t *trio, g guest, module, name string) (took time.Duration, err error) {
	began := time.Now()
	at, err := t.deploy(ctx, module, name, g.args...)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, t.remove(ctx, name)) }()
	_, err = firstAnswer(ctx, at, "/")
	return time.Since(began), err
}

// measureCGI compares an instance for each request with a process for each request,
// of the same program, both behind the gateway.
func measureCGI(ctx context.Context, b *bench, g guest, out *Section) error {
	program, err := b.native(ctx, g)
	if err != nil {
		return err
	}
	port, err := b.port()
	if err != nil {
		return err
	}
	addr := "127.0.0.1:" + port
	p, err := b.play(roleCGI, addr, program)
	if err != nil {
		return err
	}
	if _, err := p.line(); err != nil {
		return err
	}
	defer p.in.Close() // it ends
	out.Notes = append(out.Notes, "CGI, "+g.language+": each request runs a new, metered instance, or a new native process that Go's net/http/cgi starts")
	return measureBehindGateway(ctx, b, g, "CGI, "+g.language, addr, out)
}

// measureServer compares a guest that keeps running with the same program as a
// process, which is handed its listener in the same way.
func measureServer(ctx context.Context, b *bench, out *Section) error {
	p, addr, err := b.startServer(ctx, serverGuest)
	if err != nil {
		return err
	}
	defer p.cmd.Process.Kill() //nolint:errcheck // it may be gone
	return measureBehindGateway(ctx, b, serverGuest, "long-lived server, Go", addr, out)
}

// startServer runs the native twin of a server guest.
func (b *bench) startServer(ctx context.Context, g guest) (*process, string, error) {
	program, err := b.native(ctx, g)
	if err != nil {
		return nil, "", err
	}
	port, err := b.port()
	if err != nil {
		return nil, "", err
	}
	l, err := listenFile("127.0.0.1:" + port)
	if err != nil {
		return nil, "", err
	}
	defer l.Close()
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), "LISTEN_FDS=1")
	cmd.ExtraFiles = []*os.File{l}
	p, err := b.start(fmt.Sprintf("%s-%d", g.example, len(b.started)), cmd)
	return p, "127.0.0.1:" + port, err
}

// measureBehindGateway compares the guest with its native twin at addr.
func measureBehindGateway(ctx context.Context, b *bench, g guest, what, addr string, out *Section) (err error) {
	const ours, native = "wasm", "native"
	t, err := b.product(ctx)
	if err != nil {
		return err
	}
	module, err := b.module(ctx, g)
	if err != nil {
		return err
	}
	at, err := t.deploy(ctx, module, "bench-"+g.example, g.args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.remove(ctx, "bench-"+g.example)) }()
	ways, err := b.tunnelTo(ctx, t, "native-"+g.example, addr)
	if err != nil {
		return err
	}
	both := []subject{{who: native, target: ways[0].target}, {who: ours, target: at}}
	for _, s := range both { // warm up
		if _, err := firstAnswer(ctx, s.target, "/"); err != nil {
			return fmt.Errorf("%s: %w", s.who, err)
		}
	}
	for _, conns := range []int{1, 16} {
		var rate, half series
		for round := range b.rounds(5) {
			for _, s := range rotate(both, round) {
				got, err := generateHere(ctx, s.target, "/", conns, time.Second)
				if err != nil {
					return fmt.Errorf("%s, %d connections: %w", s.who, conns, err)
				}
				note("    %s, %d connections, %-6s %.0f req/s", what, conns, s.who, got.rate())
				rate.add(s.who, got.rate())
				half.add(s.who, milliseconds(got.p50))
			}
		}
		name := fmt.Sprintf("%s, %d connections", what, conns)
		out.Rows = append(out.Rows, rate.row(name, "req/s", native, ours), half.row(name+", p50", "ms", native, ours))
	}
	return nil
}
