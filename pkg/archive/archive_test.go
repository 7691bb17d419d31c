package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

type entry struct {
	typ     byte
	name    string
	mode    int64
	content string
}

func tarOf(t testing.TB, all ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range all {
		h := &tar.Header{Typeflag: e.typ, Name: e.name, Mode: e.mode}
		if e.typ == tar.TypeReg {
			h.Size = int64(len(e.content))
		} else {
			h.Linkname = e.content
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := io.WriteString(w, e.content); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func rootOf(t testing.TB, dir string) *os.Root {
	t.Helper()
	r, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func unix(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("links and modes as Unix has them")
	}
}

func TestRoundTrip(t *testing.T) {
	unix(t)
	from, to := t.TempDir(), t.TempDir()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, content := range map[string]string{"a": "one", "sub/b": "two", "sub/deep/c": strings.Repeat("three", 50_000)} {
		p := filepath.Join(from, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(content), 0o640), os.Chtimes(p, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink("../a", filepath.Join(from, "sub", "up")), os.Mkdir(filepath.Join(from, "shut"), 0o500)); err != nil {
		t.Fatal(err)
	}
	for as, want := range map[string]string{"tree": "tree", ".": ""} {
		var b bytes.Buffer
		r, err := Pack{As: as}.Dir(t.Context(), &b, rootOf(t, from))
		if err != nil || r.Skipped != 0 || r.Bytes != 250_006 {
			t.Fatalf("packed %+v, %v", r, err)
		}
		got, err := Unpack{MaxBytes: 1 << 20}.Into(t.Context(), rootOf(t, to), &b)
		if err != nil || got.Skipped != 0 || got.Bytes != r.Bytes {
			t.Fatalf("unpacked %+v, %v", got, err)
		}
		read := func(name string) string {
			b, err := os.ReadFile(filepath.Join(to, want, name))
			if err != nil {
				t.Error(err)
			}
			return string(b)
		}
		if read("a") != "one" || read("sub/b") != "two" || read("sub/up") != "one" || len(read("sub/deep/c")) != 250_000 {
			t.Errorf("as %q the contents differ", as)
		}
		st, err := os.Stat(filepath.Join(to, want, "a"))
		if err != nil || st.Mode().Perm() != 0o640 || !st.ModTime().Equal(at) {
			t.Errorf("as %q: %v %v, %v", as, st.Mode(), st.ModTime(), err)
		}
		if st, err := os.Stat(filepath.Join(to, want, "shut")); err != nil || st.Mode().Perm() != 0o500 {
			t.Errorf("as %q a closed directory: %v, %v", as, st, err)
		}
	}
}

// What a hostile archive tries ends beneath the directory or not at all.
func TestUnpackStaysBeneath(t *testing.T) {
	unix(t)
	reg := func(name string) entry { return entry{tar.TypeReg, name, 0o644, "evil"} }
	link := func(name, to string) entry { return entry{tar.TypeSymlink, name, 0o777, to} }
	dir := func(name string) entry { return entry{tar.TypeDir, name, 0o755, ""} }
	for _, c := range []struct {
		name    string
		all     []entry
		fails   bool
		skipped int64
	}{
		{"above", []entry{reg("../victim")}, true, 0},
		{"above, further down", []entry{reg("a/../../victim")}, true, 0},
		{"absolute", []entry{reg("/victim")}, true, 0},
		{"a link out, then through it", []entry{link("l", ".."), reg("l/victim")}, false, 1}, // l becomes a directory
		{"an absolute link", []entry{link("l", "/etc")}, false, 1},
		{"a link above", []entry{dir("d"), link("d/l", "../..")}, false, 1},
		{"a link that goes down and up", []entry{dir("p"), dir("p/q"), link("p/q/up", "../.."), link("z", "p/q/up/..")}, false, 1},
		{"a link under a link", []entry{dir("p"), dir("p/q"), link("p/q/up", "../.."), link("p/q/up/z", "../../..")}, true, 0},
		{"through a link within", []entry{dir("d"), link("l", "d"), reg("l/x")}, true, 0},
		{"through a link that was there", []entry{reg("out/victim")}, true, 0},
		{"over a link that was there", []entry{reg("out")}, false, 0},
		{"over a directory", []entry{dir("d"), reg("d")}, true, 0},
		{"a directory over a link", []entry{dir("out")}, true, 0},
		{"a hard link", []entry{{tar.TypeLink, "h", 0o644, "../victim"}}, false, 1},
		{"a device", []entry{{tar.TypeChar, "null", 0o666, ""}, {tar.TypeBlock, "disk", 0o666, ""}, {tar.TypeFifo, "pipe", 0o666, ""}}, false, 3},
		{"too long", []entry{reg(strings.Repeat("a/", MaxName/2) + "b")}, true, 0},
		{"too deep", []entry{reg(strings.Repeat("a/", MaxDepth) + "b")}, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			top := t.TempDir()
			to, victim := filepath.Join(top, "to"), filepath.Join(top, "victim")
			if err := errors.Join(os.Mkdir(to, 0o755), os.WriteFile(victim, []byte("good"), 0o644), os.Symlink("..", filepath.Join(to, "out"))); err != nil {
				t.Fatal(err)
			}
			r, err := Unpack{MaxBytes: 1 << 20}.Into(t.Context(), rootOf(t, to), bytes.NewReader(tarOf(t, c.all...)))
			if (err != nil) != c.fails || r.Skipped != c.skipped {
				t.Errorf("%+v, %v; want an error %v, %d skipped", r, err, c.fails, c.skipped)
			}
			check(t, top, to, victim)
		})
	}
}

// A name that leads out is refused before anything is looked up, also in a whole copy,
// which takes names that are no text.
func TestNamesThatLeadOut(t *testing.T) {
	for _, u := range []Unpack{{}, {Whole: true}} {
		for _, raw := range []string{"../victim", "a/../../victim", "/victim", "..", "./../x", "a\x00b"} {
			if got, err := u.name(raw); !errors.Is(err, ErrMalformed) {
				t.Errorf("whole %t: %q is %q, %v", u.Whole, raw, got, err)
			}
		}
		if _, err := u.name("\xff\xfe"); (err == nil) != u.Whole {
			t.Errorf("whole %t: a name that is no text: %v", u.Whole, err)
		}
		if _, err := u.name(strings.Repeat("a/", MaxDepth) + "b"); !errors.Is(err, ErrTooLarge) {
			t.Errorf("whole %t: too deep: %v", u.Whole, err)
		}
	}
}

// check fails if anything beside to was touched, or a link in it leads out.
func check(t *testing.T, top, to, victim string) {
	t.Helper()
	if b, err := os.ReadFile(victim); err != nil || string(b) != "good" {
		t.Errorf("the victim holds %q, %v", b, err)
	}
	if beside, err := os.ReadDir(top); err != nil || len(beside) != 2 {
		t.Errorf("beside it are %v, %v", beside, err)
	}
	top, err := filepath.EvalSymlinks(top)
	if err != nil {
		t.Fatal(err)
	}
	inside := filepath.Join(top, "to")
	err = filepath.WalkDir(to, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink == 0 || p == filepath.Join(to, "out") {
			return err
		}
		if end, err := filepath.EvalSymlinks(p); err == nil && end != inside && !strings.HasPrefix(end, inside+"/") {
			t.Errorf("%s leads to %s", p, end)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestUnpackGivesNoRights(t *testing.T) {
	unix(t)
	to := t.TempDir()
	if _, err := (Unpack{MaxBytes: 100}).Into(t.Context(), rootOf(t, to), bytes.NewReader(tarOf(t, entry{tar.TypeReg, "x", 0o6755, "x"}))); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(to, "x")); err != nil || st.Mode() != 0o755 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

func TestUnpackIsBounded(t *testing.T) {
	big := tarOf(t, entry{tar.TypeReg, "a", 0o644, strings.Repeat("x", 600)}, entry{tar.TypeReg, "b", 0o644, strings.Repeat("x", 600)})
	for limit, want := range map[int64]bool{0: true, 1000: true, 1200: false} {
		r, err := Unpack{MaxBytes: limit}.Into(t.Context(), rootOf(t, t.TempDir()), bytes.NewReader(big))
		if errors.Is(err, ErrTooLarge) != want || r.Bytes > limit {
			t.Errorf("at most %d bytes: %+v, %v", limit, r, err)
		}
	}
	// What it says it holds counts, before any of it comes.
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "x", Mode: 0o600, Size: 1 << 50}); err != nil {
		t.Fatal(err)
	}
	if _, err := (Unpack{MaxBytes: 1 << 40}).Into(t.Context(), rootOf(t, t.TempDir()), &b); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a petabyte: %v", err)
	}
}

func TestPackLeavesOutWhatIsNoFile(t *testing.T) {
	unix(t)
	from := t.TempDir()
	if err := errors.Join(os.WriteFile(filepath.Join(from, "a"), []byte("x"), 0o600), mkfifo(filepath.Join(from, "pipe"))); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	r, err := Pack{As: "t"}.Dir(t.Context(), &b, rootOf(t, from))
	if err != nil || r.Skipped != 1 || r.Files != 2 || !strings.HasPrefix(r.First, "pipe") {
		t.Errorf("%+v, %v", r, err)
	}
	// One that turns out to be a pipe does not hold it up.
	f, err := os.OpenFile(filepath.Join(from, "pipe"), readFlags, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := (Pack{As: "t"}).File(t.Context(), io.Discard, f); !errors.Is(err, errChanged) {
		t.Errorf("a pipe as a file: %v", err)
	}
}

func TestPlace(t *testing.T) {
	top := t.TempDir()
	if err := os.WriteFile(filepath.Join(top, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	slash := filepath.ToSlash(top)
	for to, want := range map[string]string{
		slash: slash + " ", slash + "/": slash + "/ ", slash + "/new": slash + " new", slash + "/new/": slash + " new",
		slash + "/file": slash + " file", slash + "/file/": "", slash + "/a/b": "", slash + "/file/x": "",
	} {
		dir, as, err := Place(to, os.Stat)
		if (err != nil) != (want == "") || err == nil && dir+" "+as != want {
			t.Errorf("%s: %q %q, %v; want %q", to, dir, as, err, want)
		}
	}
}

func TestBase(t *testing.T) {
	for p, want := range map[string]string{"/a/b": "b", "/a/b/": "b", "/a/.": ".", "/": ".", ".": ".", "..": ".", "a/..": ".", "": "."} {
		if got := Base(p); got != want {
			t.Errorf("Base(%q) = %q, want %q", p, got, want)
		}
	}
}

// inMemory is a directory on a file system in memory, if there is one: thousands of
// files a second come and go.
func inMemory(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "archive-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Whatever an archive says, nothing changes but beneath the directory.
func FuzzUnpack(f *testing.F) {
	f.Add(tarOf(f, entry{tar.TypeDir, "d", 0o755, ""}, entry{tar.TypeSymlink, "d/l", 0o777, "../x"}, entry{tar.TypeReg, "x", 0o644, "hello"}), "")
	f.Add(tarOf(f, entry{tar.TypeSymlink, "l", 0o777, ".."}, entry{tar.TypeReg, "l/victim", 0o644, "evil"}), "as")
	f.Add(tarOf(f, entry{tar.TypeReg, "./x", 0o644, "hello"}, entry{tar.TypeLink, "y", 0o644, "x"}), "as")
	f.Add([]byte("no archive"), "")
	f.Fuzz(func(t *testing.T, archive []byte, as string) {
		if as != "" && (!fs.ValidPath(as) || strings.Contains(as, "/") || as == ".") {
			return
		}
		top := inMemory(t)
		to, victim := filepath.Join(top, "to"), filepath.Join(top, "victim")
		if err := errors.Join(os.Mkdir(to, 0o755), os.WriteFile(victim, []byte("good"), 0o644), os.Symlink("..", filepath.Join(to, "out"))); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(to)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		r, _ := Unpack{As: as, MaxBytes: 1 << 16}.Into(context.Background(), root, bytes.NewReader(archive))
		if r.Bytes > 1<<16 {
			t.Errorf("%d bytes", r.Bytes)
		}
		check(t, top, to, victim)
	})
}
