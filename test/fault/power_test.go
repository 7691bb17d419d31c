package fault

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"peercompute/pkg/testkit"
)

// Everything that a writer tells its disk is recorded; then the power fails after
// each single call, and takes nothing, all, or some of what no fsync had covered,
// down to half-written pages (test plan, power loss). The file opens and holds all
// that had been acknowledged by then.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "strace")
	dir := t.TempDir()
	trace := filepath.Join(dir, "trace")
	state := filepath.Join(dir, "home", "state.db")
	if err := os.Mkdir(filepath.Dir(state), 0o700); err != nil {
		t.Fatal(err)
	}
	c := writer(t, []string{"strace", "-f", "-y", "-xx", "-s", "10000000", "-o", trace, "-e", "trace=openat,pwrite64,write,ftruncate,fsync,fdatasync,renameat,unlinkat"}, state, "200")
	if out, err := c.Output(); err != nil || !parse(t, out).done {
		t.Fatalf("the writer: %v\n%s", err, out)
	}
	calls := readTrace(t, trace)
	d, lost, cases := newDisk(), 0, 0
	var out []byte
	at := inMemory(t)
	for n, c := range calls {
		inHome := strings.HasPrefix(c.file, filepath.Dir(state)) || len(c.paths) > 0 && strings.HasPrefix(c.paths[0], filepath.Dir(state))
		switch {
		case c.file == "stdout":
			out = append(out, c.data...)
			continue
		case !inHome:
			continue
		}
		d.call(c)
		for i, l := range []loss{nothing, everything, some, some} {
			if scale(20) < 20 && n%20 != i {
				continue
			}
			cases++
			home := filepath.Join(at, "home")
			if err := os.Mkdir(home, 0o700); err != nil {
				t.Fatal(err)
			}
			d.after(t, home, l)
			s := parse(t, out)
			path := filepath.Join(home, filepath.Base(state))
			if _, err := os.Lstat(path); err != nil {
				if s.opened {
					t.Errorf("after call %d (%s), loss %d: there is no state file", n, c.name, l)
				}
			} else if err := holds(path, s); err != nil {
				lost++
				t.Errorf("after call %d (%s), loss %d, %d acknowledged: %v", n, c.name, l, len(s.acked), err)
			}
			if err := os.RemoveAll(home); err != nil {
				t.Fatal(err)
			}
			if lost > 10 {
				t.Fatal("and so on")
			}
		}
	}
	t.Logf("%d calls recorded, %d power losses, %d acknowledged changes in the end, 0 lost", len(calls), cases, len(parse(t, out).acked))
	if cases < scale(2500) || len(parse(t, out).acked) != 200 {
		t.Error("too little was recorded to prove anything")
	}
}

// The disk model notices a program that does not wait for its fsync.
func TestPowerLossModel(t *testing.T) {
	d := newDisk()
	d.call(call{name: "openat", paths: []string{"/d/f"}, rest: "O_CREAT"})
	d.call(call{name: "pwrite64", file: "/d/f", data: make([]byte, 2000), at: 100})
	read := func(l loss) int {
		dir := t.TempDir()
		d.after(t, dir, l)
		b, err := os.ReadFile(filepath.Join(dir, "f"))
		if err != nil {
			return -1
		}
		return len(b)
	}
	if n := read(nothing); n != 2100 {
		t.Errorf("killed: %d bytes, want 2100", n)
	}
	if n := read(everything); n != -1 {
		t.Errorf("without any fsync: %d bytes, want no file", n)
	}
	d.call(call{name: "fsync", file: "/d"})
	if n := read(everything); n != 0 {
		t.Errorf("without fsync of the file: %d bytes, want 0", n)
	}
	torn := map[int]bool{}
	for range 200 {
		torn[read(some)] = true
	}
	if len(torn) < 4 {
		t.Errorf("torn to %v only", torn)
	}
	d.call(call{name: "fdatasync", file: "/d/f"})
	if n := read(everything); n != 2100 {
		t.Errorf("after all fsyncs: %d bytes, want 2100", n)
	}
}
