package wasm

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
	"peercompute/pkg/testkit"
)

// A C program built with stock tools is a service.
func TestCProgram(t *testing.T) {
	testkit.Need(t, "wasi-libc")
	out := filepath.Join(t.TempDir(), "hello-c.wasm")
	if msg, err := exec.Command("clang", "--target=wasm32-wasi", "-O2", "-s", "-o", out, "../../../examples/hello-c/hello.c").CombinedOutput(); err != nil {
		t.Fatalf("clang: %v\n%s", err, msg)
	}
	r := newRig(t, Limits{})
	c := r.start(r.workload(r.shelf.put(out), mesh.HTTP, nil)).client()
	if res, body := get(t, c, "http://app.example/a"); res.StatusCode != 200 || body != "Hello from C on a peer!\nGET /a on app.example\n" {
		t.Errorf("got %d %q", res.StatusCode, body)
	}
	res, err := c.Post("http://app/echo", "text/plain", strings.NewReader("four score"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || string(b) != "four score" {
		t.Errorf("got %q, %v", b, err)
	}
}

// A Rust program is one where a target for WASI is installed.
func TestRustProgram(t *testing.T) {
	dir := t.TempDir()
	source, out := filepath.Join(dir, "hello.rs"), filepath.Join(dir, "hello.wasm")
	if err := os.WriteFile(source, []byte("fn main() { println!(\"hello from Rust, {}\", std::env::args().count()); }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	built := false
	for _, rustc := range []string{"rustc", "/usr/bin/rustc"} { // rustup's, a distribution's
		for _, target := range []string{"wasm32-wasip1", "wasm32-wasi"} { // its name today, and before
			built = built || exec.Command(rustc, "--target", target, "-o", out, source).Run() == nil
		}
	}
	if !built {
		t.Skip("needs a rustc with the target wasm32-wasip1 or wasm32-wasi")
	}
	r := newRig(t, Limits{})
	if text, exit := r.output(r.workload(r.shelf.put(out), mesh.Job, nil)); text != "hello from Rust, 1\n" {
		t.Errorf("got %q, %+v", text, exit)
	}
}

// Tests of Go's standard library run as jobs, under fuel, and pass. They need a
// scratch directory: that is where the output of their examples goes on WASI.
func TestStandardLibrary(t *testing.T) {
	for _, pkg := range []string{"unicode/utf8", "strconv", "sort"} {
		t.Run(pkg, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "test.wasm")
			cmd := exec.Command("go", "test", "-c", "-o", out, pkg)
			cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
			if msg, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("go test -c %s: %v\n%s", pkg, err, msg)
			}
			r := newGoRig(t, Limits{})
			got := r.job(r.workload(r.shelf.put(out), mesh.Job, func(s *mesh.Spec) {
				s.Args = []string{"-test.short"}
				s.Resources.Disk, s.Resources.Fuel, s.Timeout = 16<<20, 1_000_000_000_000, mesh.MaxTimeout
			}), driver.Job{})
			if got.Code != 0 || !strings.HasSuffix(got.out, "PASS\n") || got.Fuel < 1_000_000 {
				t.Errorf("%+v\n%s\n%s", got.Exit, got.out, got.errs)
			}
			t.Logf("%d units of fuel, %d bytes at most", got.Fuel, got.PeakMemory)
		})
	}
}
