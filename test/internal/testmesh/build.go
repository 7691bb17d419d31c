// Package testmesh starts real nodes for tests: it builds the programs once per
// test process, runs any number of peers and gateways in directories of their
// own, drives them through peerctl as a person would, and checks that each ends
// in good order and leaves nothing behind: no process, no container.
package testmesh

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// RaceEnv makes the programs be built with the race detector when it is set.
const RaceEnv = "PEERCOMPUTE_TEST_RACE"

// ProgramsEnv names a directory in which what is built stays, and from which it is
// taken where it is there already: for several runs over one state of the sources.
const ProgramsEnv = "PEERCOMPUTE_TEST_PROGRAMS"

// Main runs the tests of a package that uses this one and then removes what was
// built for them. Call it from TestMain and exit with its result.
func Main(m *testing.M) int {
	code := m.Run()
	if err := shop.clean(); err != nil {
		fmt.Fprintln(os.Stderr, "testmesh:", err)
		code = max(code, 1)
	}
	return code
}

// Race reports whether the programs are built with the race detector, which
// makes their memory and speed mean nothing.
func Race() bool { return os.Getenv(RaceEnv) != "" }

// workshop builds each thing at most once.
type workshop struct {
	mu    sync.Mutex
	root  string                            // of all temporary directories
	built map[string]func() (string, error) // name → its file
}

var shop = &workshop{built: map[string]func() (string, error){}}

// dir makes the root where there is none. It is kept short: a unix socket's path
// has room for some hundred bytes.
func (s *workshop) dir() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.root != "" {
		return s.root, nil
	}
	parent := os.TempDir()
	if len(parent) > 40 {
		parent = "/tmp"
	}
	root, err := os.MkdirTemp(parent, "pcmesh")
	if err != nil {
		return "", err
	}
	s.root = root
	return root, os.Mkdir(filepath.Join(root, "bin"), 0o700)
}

func (s *workshop) clean() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.root == "" {
		return nil
	}
	left, err := os.ReadDir(s.root)
	for _, e := range left {
		if e.Name() != "bin" {
			err = errors.Join(err, fmt.Errorf("a test left %s behind", filepath.Join(s.root, e.Name())))
		}
	}
	return errors.Join(err, os.RemoveAll(s.root))
}

// build compiles a package of this module into a file called name.
func (s *workshop) build(t testing.TB, name, pkg string, env []string, flags ...string) string {
	t.Helper()
	root, err := s.dir()
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	one := s.built[name]
	if one == nil {
		one = sync.OnceValues(func() (string, error) {
			out := filepath.Join(root, "bin", name)
			module, err := moduleRoot()
			if err != nil {
				return "", err
			}
			if err := lookAtSources(module); err != nil {
				return "", err
			}
			whole := ""
			if dir := os.Getenv(ProgramsEnv); dir != "" {
				kind := sha256.Sum256([]byte(strings.Join(append(append(env, flags...), pkg), " ")))
				dir = filepath.Join(dir, hex.EncodeToString(kind[:4]))
				whole = filepath.Join(dir, name)
				if _, err := os.Stat(whole); err == nil {
					return whole, nil
				}
				if err := os.MkdirAll(dir, 0o755); err != nil {
					return "", err
				}
				out = fmt.Sprintf("%s.%d", whole, os.Getpid())
			}
			cmd := exec.Command("go", append(append([]string{"build", "-o", out}, flags...), pkg)...)
			cmd.Dir = module
			cmd.Env = append(os.Environ(), env...)
			if text, err := cmd.CombinedOutput(); err != nil {
				return "", fmt.Errorf("cannot build %s: %w\n%s", pkg, err, text)
			}
			if whole == "" {
				return out, nil
			}
			return whole, os.Rename(out, whole)
		})
		s.built[name] = one
	}
	s.mu.Unlock()
	file, err := one()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// lookAtSources looks at every source of the module. The compiler runs in another
// process, so without this the test cache would not know what the test depends on
// and answer for programs that have changed since.
func lookAtSources(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "bin" || d.Name() == "out") {
			return filepath.SkipDir
		}
		switch filepath.Ext(path) {
		case ".go", ".json", ".mod":
			_, err = os.Stat(path)
		}
		return err
	})
}

// moduleRoot is the directory of go.mod, upwards from where the test runs.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("no go.mod above the test's directory")
}

// ModuleRoot is the directory of this module's go.mod.
func ModuleRoot(t testing.TB) string {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// Program returns one of our programs (peerd, peerctl, peergate), built.
func Program(t testing.TB, name string) string {
	t.Helper()
	if Race() && name != "peerctl" {
		return shop.build(t, name, "./cmd/"+name, []string{"CGO_ENABLED=1"}, "-race")
	}
	return shop.build(t, name, "./cmd/"+name, []string{"CGO_ENABLED=0"}, "-ldflags=-s -w") // as `make build` does
}

// Build returns another program of this module, built: a test's own helper.
func Build(t testing.TB, pkg string) string {
	t.Helper()
	return shop.build(t, "test-"+filepath.Base(pkg), pkg, []string{"CGO_ENABLED=0"})
}

// Wasm returns an example (hello-wasm, wordcount) as a WASI module, of some 2 MB.
func Wasm(t testing.TB, example string) string {
	t.Helper()
	if Race() {
		t.Skip("under the race detector a large module takes longer to compile than a worker may")
	}
	return shop.build(t, example+".wasm", "./examples/"+example, []string{"GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0"}, "-ldflags=-s -w")
}
