// Package arch holds the house's rules: which package may import which. It reads
// the sources itself, in-process, so that `go test` never answers from a cache
// that does not know about them.
package arch

import (
	"go/build"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "peercompute"

// floors orders the packages: each imports only lower floors, or its own
// subfolders. A package that is missing here fails the test, so that a new one gets its place.
var floors = map[string]int{
	"pkg/mesh": 0, "pkg/archive": 0, "pkg/fuel": 1, "pkg/frame": 0, "pkg/mux": 0, "pkg/socket": 0, "seccomp": 0,
	"pkg/oci":  1,
	"pkg/wire": 1, "pkg/identity": 1, "pkg/store": 1, "pkg/event": 1, "pkg/blob": 1, "pkg/lend": 1, "pkg/compose": 1,
	"pkg/audit":     2, // below trust, which records its changes in their own transactions
	"pkg/trust":     3,
	"pkg/receipt":   3,
	"pkg/alarm":     3,
	"pkg/cron":      3,
	"pkg/admission": 4, "pkg/peernet": 4, "pkg/backup": 4, "pkg/secret": 4,
	"pkg/egress": 1, "pkg/driver": 5, "pkg/request": 5, "pkg/heartbeat": 5,
	"pkg/driver/docker": 6, "pkg/driver/wasm": 6,
	"pkg/supervisor": 7, "pkg/jobs": 7, "pkg/publish": 7,
	"pkg/control": 8,
	"pkg/member":  9,
	"pkg/node":    10, "gateway": 10,
	"cmd/peerd": 11, "cmd/peerctl": 11, "cmd/peergate": 11,
}

// owners says who alone may import a vendor's package (by prefix).
var owners = map[string][]string{
	"github.com/docker/docker":                   {"pkg/driver/docker"},
	"github.com/tetratelabs/wazero":              {"pkg/driver/wasm"},
	"go.etcd.io/bbolt":                           {"pkg/store"},
	"github.com/fxamacker/cbor":                  {"pkg/wire"},
	"github.com/spf13/cobra":                     {"cmd/peerd", "cmd/peerctl", "cmd/peergate"},
	"github.com/libp2p/go-libp2p":                {"pkg/peernet"},
	"github.com/libp2p/zeroconf":                 {"pkg/peernet"},
	"gvisor.dev/gvisor":                          {"pkg/driver/docker"},
	"github.com/google/go-containerregistry":     {"pkg/oci"},
	"github.com/moby/patternmatcher":             {"pkg/control"},
	"github.com/robfig/cron":                     {"pkg/cron"},
	"github.com/compose-spec/compose-go":         {"pkg/compose"},
	"go.yaml.in/yaml":                            {"pkg/compose"},
	"rsc.io/qr":                                  {"cmd/peerctl"},
	"filippo.io/age":                             {"pkg/backup", "pkg/secret"},
	"github.com/libp2p/go-libp2p/core/peer":      {"pkg/mesh", "pkg/wire", "pkg/identity", "pkg/peernet"},
	"github.com/libp2p/go-libp2p/core/crypto":    {"pkg/wire", "pkg/identity", "pkg/peernet"},
	"github.com/libp2p/go-libp2p/core/crypto/pb": {"pkg/wire", "pkg/identity"},
	"github.com/libp2p/go-libp2p/core/record":    {"pkg/wire"},
}

// narrow lists packages that may import of ours only what is named.
var narrow = map[string][]string{
	"pkg/mesh":          {},
	"pkg/frame":         {},
	"pkg/mux":           {},
	"pkg/socket":        {},
	"pkg/archive":       {},
	"seccomp":           {},
	"pkg/fuel":          {"pkg/mesh"},
	"pkg/wire":          {"pkg/mesh", "pkg/frame"},
	"pkg/identity":      {"pkg/mesh"},
	"pkg/store":         {"pkg/mesh"},
	"pkg/audit":         {"pkg/mesh", "pkg/store"},
	"pkg/blob":          {"pkg/mesh"},
	"pkg/receipt":       {"pkg/mesh", "pkg/wire", "pkg/store"},
	"pkg/secret":        {"pkg/mesh", "pkg/identity"},
	"pkg/backup":        {"pkg/mesh", "pkg/wire", "pkg/identity", "pkg/trust"},
	"pkg/event":         {"pkg/mesh"},
	"pkg/oci":           {"pkg/mesh"},
	"pkg/driver":        {"pkg/mesh", "pkg/oci", "pkg/archive"},
	"pkg/lend":          {"pkg/mesh"},
	"pkg/egress":        {"pkg/mesh"},
	"pkg/driver/docker": {"pkg/mesh", "pkg/driver", "pkg/egress", "pkg/oci", "pkg/archive", "seccomp"},
	"pkg/driver/wasm":   {"pkg/mesh", "pkg/driver", "pkg/egress", "pkg/fuel", "pkg/frame"},
	"pkg/publish":       {"pkg/mesh", "pkg/wire", "pkg/socket"},
	"pkg/cron":          {"pkg/mesh", "pkg/store"},
	"pkg/jobs":          {"pkg/mesh", "pkg/store", "pkg/driver"},
	"pkg/control":       {"pkg/mesh", "pkg/frame", "pkg/archive"},
	"pkg/compose":       {"pkg/mesh"},
	"cmd/peerctl":       {"pkg/mesh", "pkg/control"},
}

// source is one Go package of the product: tests and their helpers are not held
// to floors.
type source struct {
	dir     string
	imports map[string][]string // import path → files
	doc     bool
}

func load(t *testing.T) []source {
	t.Helper()
	root := "../.."
	var out []source
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if !d.IsDir() {
			return nil
		}
		base := d.Name()
		if rel == "test" || rel == "examples" || rel == "bin" || base == "testdata" || base == "testkit" || base == "dockertest" || base == "drivertest" || (strings.HasPrefix(base, ".") && rel != ".") {
			return filepath.SkipDir
		}
		s := source{dir: filepath.ToSlash(rel), imports: map[string][]string{}}
		files, err := filepath.Glob(filepath.Join(path, "*.go"))
		if err != nil {
			return err
		}
		found := false
		for _, f := range files {
			if strings.HasSuffix(f, "_test.go") {
				continue
			}
			ast, err := parser.ParseFile(token.NewFileSet(), f, nil, parser.ImportsOnly|parser.ParseComments)
			if err != nil {
				return err
			}
			found = true
			s.doc = s.doc || (ast.Doc != nil && len(ast.Doc.Text()) > 20)
			for _, i := range ast.Imports {
				p, _ := strconv.Unquote(i.Path.Value)
				s.imports[p] = append(s.imports[p], f)
			}
		}
		if found {
			out = append(out, s)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 15 {
		t.Fatalf("found only %d packages; is the test looking at the right tree?", len(out))
	}
	return out
}

// house is the registered package that dir belongs to: itself or the nearest
// parent, so that a package's internal folders live on its floor.
func house(dir string) (string, bool) {
	for d := dir; d != "." && d != "/"; d = filepath.ToSlash(filepath.Dir(d)) {
		if _, ok := floors[d]; ok {
			return d, true
		}
	}
	return "", false
}

func TestFloors(t *testing.T) {
	for _, s := range load(t) {
		from, ok := house(s.dir)
		if !ok {
			t.Errorf("%s has no floor: give it one in test/arch", s.dir)
			continue
		}
		for p, files := range s.imports {
			rel, ours := strings.CutPrefix(p, module+"/")
			if !ours {
				continue
			}
			to, ok := house(rel)
			switch {
			case !ok:
				t.Errorf("%v imports %s, which has no floor", files, rel)
			case to == from:
			case floors[to] >= floors[from]:
				t.Errorf("%v: %s (floor %d) imports %s (floor %d); only lower floors may be imported", files, from, floors[from], to, floors[to])
			}
			if may, ok := narrow[from]; ok && to != from && !slices.Contains(may, to) {
				t.Errorf("%v: %s may import only %v of ours, not %s", files, from, may, to)
			}
		}
	}
}

func TestVendorOwners(t *testing.T) {
	for _, s := range load(t) {
		from, _ := house(s.dir)
		for p, files := range s.imports {
			longest := ""
			for prefix := range owners {
				if (p == prefix || strings.HasPrefix(p, prefix+"/")) && len(prefix) > len(longest) {
					longest = prefix
				}
			}
			if longest != "" && !slices.Contains(owners[longest], from) {
				t.Errorf("%v: %s imports %s, which only %v may", files, from, p, owners[longest])
			}
		}
	}
}

func TestPackageComments(t *testing.T) {
	for _, s := range load(t) {
		if !s.doc {
			t.Errorf("%s has no package comment that says what it owns", s.dir)
		}
	}
}

// reach follows imports through every module, as the linker would.
func reach(t *testing.T, start string) map[string]bool {
	t.Helper()
	ctx := build.Default
	ctx.CgoEnabled = false
	seen := map[string]bool{}
	wd, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	var walk func(path, from string)
	walk = func(path, from string) {
		if seen[path] || path == "C" || path == "unsafe" {
			return
		}
		seen[path] = true
		if !strings.HasPrefix(path, module) && !strings.Contains(strings.Split(path, "/")[0], ".") {
			return // standard library
		}
		if !strings.HasPrefix(path, module) {
			return // a vendor's package: named by whoever of ours imports it
		}
		p, err := ctx.ImportDir(filepath.Join(wd, strings.TrimPrefix(path, module)), 0)
		if err != nil {
			t.Fatalf("%s (imported by %s): %v", path, from, err)
		}
		for _, i := range p.Imports {
			walk(i, path)
		}
	}
	walk(start, "")
	return seen
}

// The gateway never executes user code: no runtime is linked into it. And peerctl
// never touches a key or the network: no libp2p host is linked into it.
func TestWhatProgramsReach(t *testing.T) {
	for program, never := range map[string][]string{
		"cmd/peergate": {"github.com/tetratelabs/wazero", "github.com/docker/docker", module + "/pkg/driver"},
		"cmd/peerctl": {
			"github.com/tetratelabs/wazero", "github.com/docker/docker", "github.com/libp2p/go-libp2p/p2p",
			"github.com/libp2p/go-libp2p/core/host", "github.com/libp2p/go-libp2p/core/crypto", "filippo.io/age", module + "/pkg/peernet", module + "/pkg/identity",
		},
	} {
		reached := reach(t, module+"/"+program)
		if len(reached) < 10 {
			t.Fatalf("%s reaches only %d packages", program, len(reached))
		}
		for p := range reached {
			for _, n := range never {
				if p == n || strings.HasPrefix(p, n+"/") {
					t.Errorf("%s reaches %s", program, p)
				}
			}
		}
	}
	if !reach(t, module+"/cmd/peerd")["github.com/tetratelabs/wazero"] {
		t.Error("the walk does not find wazero even in peerd: it checks nothing")
	}
}

// The top level is fixed.
func TestTopLevel(t *testing.T) {
	allowed := []string{
		"cmd", "pkg", "gateway", "seccomp", "configs", "test", "examples", "docs", "bin", "out",
		"go.mod", "go.sum", "Makefile", "THREAT_MODEL.md", "README.md", "LICENSE",
	}
	entries, err := os.ReadDir("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(allowed, e.Name()) {
			t.Errorf("%s does not belong at the top level", e.Name())
		}
	}
}

// Each direct dependency has its paragraph of reasons.
func TestDependenciesAreExplained(t *testing.T) {
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	why, err := os.ReadFile("../../pkg/RATIONALE.md")
	if err != nil {
		t.Fatal(err)
	}
	aliases := map[string]string{ // module → the name it is explained under
		"filippo.io/edwards25519":              "edwards25519",
		"github.com/rogpeppe/go-internal":      "testscript",
		"github.com/multiformats/go-multiaddr": "go-multiaddr",
		"github.com/distribution/reference":    "distribution/reference",
		"github.com/fxamacker/cbor/v2":         "fxamacker/cbor",
		"github.com/pelletier/go-toml/v2":      "go-toml/v2",
		"github.com/libp2p/go-yamux/v5":        "go-yamux",
		"github.com/libp2p/zeroconf/v2":        "libp2p/zeroconf",
		"rsc.io/qr":                            "rsc.io/qr",
		"github.com/elastic/go-seccomp-bpf":    "go-seccomp-bpf",
		"golang.org/x/sys":                     "x/sys",
		"golang.org/x/term":                    "x/term",
		"golang.org/x/sync":                    "x/sync",
		"golang.org/x/net":                     "x/net",
		"golang.org/x/time":                    "x/time",
	}
	n := 0
	for line := range strings.Lines(string(mod)) {
		f := strings.Fields(line)
		if len(f) != 2 || !strings.Contains(f[0], ".") || !strings.HasPrefix(f[1], "v") {
			continue // not a direct requirement
		}
		n++
		name := aliases[f[0]]
		if name == "" {
			name = f[0][strings.LastIndex(f[0], "/")+1:]
		}
		if !strings.Contains(string(why), name) {
			t.Errorf("%s has no paragraph in pkg/RATIONALE.md", f[0])
		}
	}
	if n < 15 {
		t.Fatalf("found only %d requirements", n)
	}
}
