package volume

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"peercompute/pkg/archive"
	"peercompute/pkg/mesh"
	"peercompute/pkg/testkit"
)

const (
	someVolume  = mesh.VolumeID("aaaaaaaaaaaaaaaa")
	otherVolume = mesh.VolumeID("bbbbbbbbbbbbbbbb")
	user        = 0x70000123
)

func opened(t *testing.T, s *Store, id mesh.VolumeID) *tree {
	t.Helper()
	tr, err := open(s.path(id), writable)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func made(t *testing.T) *Store {
	t.Helper()
	testkit.Need(t, "loopfs")
	s := New(filepath.Join(t.TempDir(), "volumes"))
	if err := s.Available(); err != nil {
		t.Fatal(err)
	}
	if err := s.Make(t.Context(), someVolume, mesh.MinVolume, user); err != nil {
		t.Fatal(err)
	}
	return s
}

// The space of a volume is taken at once, it is empty and its user's, and it cannot
// hold more.
func TestVolumeHasItsSize(t *testing.T) {
	s := made(t)
	var st syscall.Stat_t
	if err := syscall.Stat(s.path(someVolume), &st); err != nil || st.Blocks*512 < mesh.MinVolume || st.Mode&0o77 != 0 {
		t.Errorf("%d bytes are taken, mode %o, %v", st.Blocks*512, st.Mode, err)
	}
	if err := s.Make(t.Context(), someVolume, mesh.MinVolume, user); err != nil {
		t.Errorf("again: %v", err)
	}
	if err := s.Make(t.Context(), someVolume, 2*mesh.MinVolume, user); err == nil {
		t.Error("it is there with another size, and nobody says so")
	}
	v := opened(t, s, someVolume)
	defer v.Close()
	info, err := v.root.Stat(".")
	if err != nil || info.Mode().Perm() != 0o700 || info.Sys().(*syscall.Stat_t).Uid != user {
		t.Errorf("the root is %v, %v", info, err)
	}
	if names, err := readdir(v.root, "."); err != nil || len(names) != 0 {
		t.Errorf("a new volume holds %q, %v", names, err)
	}
	f, err := v.root.Create("big")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var written int
	for block := make([]byte, 1<<20); ; {
		n, err := f.Write(block)
		written += n
		if err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Error(err)
			}
			break
		}
		if written > mesh.MinVolume {
			t.Fatal("it holds more than its size")
		}
	}
	if written < mesh.MinVolume/2 {
		t.Errorf("it holds only %d bytes", written)
	}
}

func readdir(r *os.Root, dir string) ([]string, error) {
	f, err := r.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// A volume has one user at a time, and leaves no device or mount behind.
func TestVolumeIsOneUsers(t *testing.T) {
	s := made(t)
	d, err := s.Attach(t.Context(), someVolume)
	if err != nil {
		t.Fatal(err)
	}
	number, err := d.Number()
	if got, ok := s.On(number); err != nil || !ok || got != someVolume {
		t.Errorf("on its device lies %q, %t, %v", got, ok, err)
	}
	if got, ok := New(t.TempDir()).On(number); ok {
		t.Errorf("another store takes it for its %q", got)
	}
	s.patience = 0
	for name, f := range map[string]func() error{
		"attach":  func() error { _, err := s.Attach(t.Context(), someVolume); return err },
		"remove":  func() error { return s.Remove(t.Context(), someVolume) },
		"backup":  func() error { _, err := s.Backup(t.Context(), someVolume, &bytes.Buffer{}); return err },
		"another": func() error { _, err := New(s.dir).Attach(t.Context(), someVolume); return err }, // as after a restart
	} {
		if err := f(); mesh.KindOf(err) != mesh.Unavailable {
			t.Errorf("%s while it is in use: %v", name, err)
		}
	}
	s.patience = time.Minute
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), someVolume); err != nil || s.Has(someVolume) {
		t.Errorf("removing: %v, there %t", err, s.Has(someVolume))
	}
	if on, err := s.attached(someVolume); err != nil || on {
		t.Errorf("a device is left: %t, %v", on, err)
	}
	if mounts, _ := os.ReadFile("/proc/self/mounts"); strings.Contains(string(mounts), s.dir) {
		t.Error("a mount is left")
	}
	if err := s.Remove(t.Context(), someVolume); err != nil {
		t.Errorf("removing what is gone: %v", err)
	}
}

// How full a volume is can be told while it is mounted and when it is not.
func TestVolumeIsMeasured(t *testing.T) {
	s := made(t)
	used := func() int64 {
		t.Helper()
		n, err := s.Used(someVolume)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	empty := used()
	if empty <= 0 || empty > mesh.MinVolume/2 {
		t.Errorf("empty, it has %d bytes in use", empty)
	}
	v := opened(t, s, someVolume)
	if err := v.root.WriteFile("file", make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if n := used() - empty; n < 4<<20 || n > 5<<20 {
		t.Errorf("mounted, 4 MiB more are %d bytes", n)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	release, err := s.take(t.Context(), someVolume) // the device is gone by then
	if err != nil {
		t.Fatal(err)
	}
	release()
	if n := used() - empty; n < 4<<20 || n > 5<<20 {
		t.Errorf("not mounted, 4 MiB more are %d bytes", n)
	}
	if all, err := s.Files(); err != nil || len(all) != 1 || all[someVolume] != mesh.MinVolume {
		t.Errorf("files: %v, %v", all, err)
	}
	if err := os.WriteFile(s.path(otherVolume), make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Used(otherVolume); err == nil {
		t.Errorf("of what is no file system %d bytes are used", n)
	}
}

// The device of another file is not mounted in a volume's place.
func TestOnlyItsOwnDeviceIsMeasured(t *testing.T) {
	s := made(t)
	v := opened(t, s, someVolume)
	defer v.Close()
	if _, err := s.freeOn(filepath.Base(v.dev.Path), someVolume); err != nil {
		t.Errorf("its own: %v", err)
	}
	if n, err := s.freeOn(filepath.Base(v.dev.Path), otherVolume); err == nil {
		t.Errorf("on another's device %d bytes are free", n)
	}
}

func TestSweepRemovesWhatACrashLeft(t *testing.T) {
	dir := t.TempDir()
	s := New(dir)
	for _, f := range []string{"aaaaaaaaaaaaaaaa.img.new", "bbbbbbbbbbbbbbbb.img"} {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 || left[0].Name() != "bbbbbbbbbbbbbbbb.img" {
		t.Errorf("left: %v", left)
	}
}

// What goes into an archive comes out of it.
func TestBackupAndRestore(t *testing.T) {
	s := made(t)
	v := opened(t, s, someVolume)
	then := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := errors.Join(v.root.WriteFile(name, []byte(text), 0o600), v.root.Chmod(name, mode), v.root.Chtimes(name, then, then)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(v.root.Mkdir("d", 0o750), v.root.Mkdir("d/e", 0o700)); err != nil {
		t.Fatal(err)
	}
	write("d/e/a", strings.Repeat("a", 100_000), 0o640)
	write("\xff\xfe name", "latin", 0o600)
	write("d/"+strings.Repeat("long", 50), "long", 0o755)
	if err := errors.Join(v.root.Symlink("/etc/passwd", "out"), v.root.Link("d/e/a", "again"), syscall.Mkfifo("/proc/self/fd/"+fd(v)+"/pipe", 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	sum, err := s.Backup(t.Context(), someVolume, &archive)
	if err != nil || sum.Entries != 7 || sum.Left != 1 || sum.Bytes != 100_009 {
		t.Fatalf("%+v, %v", sum, err)
	}
	if err := s.Make(t.Context(), otherVolume, mesh.MinVolume, user); err != nil {
		t.Fatal(err)
	}
	got, err := s.Restore(t.Context(), otherVolume, user, bytes.NewReader(archive.Bytes()))
	if err != nil || got.Entries != 7 || got.Bytes != sum.Bytes {
		t.Fatalf("%+v, %v", got, err)
	}
	v = opened(t, s, otherVolume)
	for name, want := range map[string]os.FileMode{"d": 0o750, "d/e": 0o700, "d/e/a": 0o640, "\xff\xfe name": 0o600} {
		info, err := v.root.Lstat(name)
		if err != nil || info.Mode().Perm() != want || info.Sys().(*syscall.Stat_t).Uid != user {
			t.Errorf("%q: %v, %v", name, info, err)
		} else if !info.IsDir() && !info.ModTime().Equal(then) {
			t.Errorf("%q is of %s", name, info.ModTime())
		}
	}
	if text, err := v.root.ReadFile("again"); err != nil || len(text) != 100_000 {
		t.Errorf("the second name: %d bytes, %v", len(text), err)
	}
	if info, err := v.root.Stat("again"); err != nil || info.Sys().(*syscall.Stat_t).Nlink != 2 {
		t.Errorf("it is a file of its own: %v", err)
	}
	if to, err := v.root.Readlink("out"); err != nil || to != "/etc/passwd" {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	var second bytes.Buffer
	if _, err := s.Backup(t.Context(), otherVolume, &second); err != nil {
		t.Fatal(err)
	}
}

func fd(v *tree) string { return strings.TrimPrefix(v.root.Name(), "/proc/self/fd/") }

// An archive that ends because a connection broke is not taken for a whole one, also
// where the break comes behind its last byte.
func TestBrokenConnectionIsNoEnd(t *testing.T) {
	archive := archiveOf(t, file("x"))
	for _, n := range []int{len(archive), len(archive) - 1, len(archive) / 2} {
		root, err := os.OpenRoot(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		cut := mesh.Errorf(mesh.Unavailable, "the connection was lost").Because(io.EOF)
		r := io.MultiReader(bytes.NewReader(archive[:n]), iotest.ErrReader(cut))
		if _, err := unpack(t.Context(), root, r, os.Getuid(), 1<<20); mesh.KindOf(err) != mesh.Unavailable {
			t.Errorf("cut behind %d of %d bytes: %v", n, len(archive), err)
		}
		root.Close()
	}
}

// archiveOf is an archive with these entries, a file's content being its name.
func archiveOf(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	w := tar.NewWriter(zip)
	for _, h := range headers {
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(h.Name))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte(h.Name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(w.Close(), zip.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func file(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o4777} }

func link(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
}

// Nothing that an archive names leads out of the directory.
func TestHostileArchives(t *testing.T) {
	for name, c := range map[string]struct {
		archive []byte
		kind    mesh.Kind // None = it is taken
	}{
		"above":                 {archiveOf(t, file("../out/x")), mesh.Invalid},
		"absolute":              {archiveOf(t, file("/x")), mesh.Invalid},
		"through a link":        {archiveOf(t, link("d", "../out"), file("d/x")), mesh.Invalid},
		"through an inner link": {archiveOf(t, file("e/y"), link("d", "e"), file("d/x")), mesh.Invalid},
		"over a link":           {archiveOf(t, link("x", "../out/x"), file("x")), mesh.Invalid},
		"a hard link out":       {archiveOf(t, tar.Header{Typeflag: tar.TypeLink, Name: "l", Linkname: "../out/secret"}), mesh.Invalid},
		"twice":                 {archiveOf(t, file("x"), file("./x")), mesh.Invalid},
		"a device":              {archiveOf(t, tar.Header{Typeflag: tar.TypeBlock, Name: "sda", Devmajor: 8}), mesh.None},
		"a pipe":                {archiveOf(t, tar.Header{Typeflag: tar.TypeFifo, Name: "p"}), mesh.None},
		"cut off":               {archiveOf(t, file("x"))[:40], mesh.Invalid},
		"more behind":           {append(archiveOf(t, file("x")), "more"...), mesh.Invalid},
		"no archive":            {[]byte("hello, world, this is no archive"), mesh.Invalid},
		"nothing":               {nil, mesh.Invalid},
		"set-user-ID":           {archiveOf(t, file("x")), mesh.None},
		"no directories":        {archiveOf(t, file("a/b/c")), mesh.None},
		"deep":                  {archiveOf(t, file(strings.Repeat("a/", archive.MaxDepth+2)+"x")), mesh.TooLarge},
	} {
		t.Run(name, func(t *testing.T) { unpackInto(t, c.archive, c.kind) })
	}
}

// unpackInto unpacks into a directory beside which lies one that must stay as it is.
func unpackInto(t *testing.T, archive []byte, want mesh.Kind) {
	base := t.TempDir()
	in, out := filepath.Join(base, "in"), filepath.Join(base, "out")
	if err := errors.Join(os.Mkdir(in, 0o700), os.Mkdir(out, 0o700), os.WriteFile(filepath.Join(out, "secret"), []byte("s"), 0o600)); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(in)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	_, err = unpack(context.Background(), root, bytes.NewReader(archive), os.Getuid(), 1<<20)
	if want != anything && mesh.KindOf(err) != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if beside, _ := os.ReadDir(base); len(beside) != 2 {
		t.Errorf("beside it lies %v", beside)
	}
	if left, _ := os.ReadDir(out); len(left) != 1 {
		t.Errorf("elsewhere lies %v", left)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(out, "secret"), &st); err != nil || st.Nlink != 1 || st.Size != 1 {
		t.Errorf("what lies elsewhere was changed: %+v, %v", st, err)
	}
	_ = filepath.WalkDir(in, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			t.Fatal(err)
		}
		switch m := d.Type(); {
		case m.IsDir() || m.IsRegular() || m == os.ModeSymlink:
		default:
			t.Errorf("%s is a %s", p, m)
		}
		if info, err := d.Info(); err == nil && info.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0 {
			t.Errorf("%s has mode %s", p, info.Mode())
		}
		return nil
	})
}

const anything mesh.Kind = 0xfffe // whatever becomes of it

// An archive is read no further than the volume could hold.
func TestArchiveIsBounded(t *testing.T) {
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	w := tar.NewWriter(zip)
	zeros := make([]byte, 1<<20)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "zeros", Size: 20 << 20}); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), zip.Close()); err != nil {
		t.Fatal(err)
	}
	unpackInto(t, b.Bytes(), mesh.TooLarge)
	var many []tar.Header // that hold nothing, and have over 1 MiB themselves
	for i := range 1<<20/512 + 1 {
		many = append(many, tar.Header{Typeflag: tar.TypeDir, Name: strconv.Itoa(i)})
	}
	unpackInto(t, archiveOf(t, many...), mesh.TooLarge)

	s := made(t)
	if _, err := s.Restore(t.Context(), someVolume, user, &b); mesh.KindOf(err) != mesh.TooLarge || mesh.AsError(err).Rule != "volume.size" {
		t.Errorf("more than fits: %v", err)
	}
}

// A file of nothing but a hole does not make a backup without an end.
func TestHolesAreBounded(t *testing.T) {
	s := made(t)
	v := opened(t, s, someVolume)
	f, err := v.root.Create("hole")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(thin*mesh.MinVolume+1), f.Close(), v.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Backup(t.Context(), someVolume, &bytes.Buffer{}); mesh.KindOf(err) != mesh.TooLarge {
		t.Errorf("got %v", err)
	}
}

// Whatever an archive says, nothing beside the directory is touched.
func FuzzUnpack(f *testing.F) {
	plain := func(b []byte) []byte {
		zip, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			f.Fatal(err)
		}
		var out bytes.Buffer
		if _, err := out.ReadFrom(zip); err != nil {
			f.Fatal(err)
		}
		return out.Bytes()
	}
	f.Add(plain(archiveOf(f, file("a/b"), link("c", "../out"), tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o755})))
	f.Add(plain(archiveOf(f, tar.Header{Typeflag: tar.TypeLink, Name: "l", Linkname: "a/b"})))
	f.Fuzz(func(t *testing.T, archive []byte) {
		var b bytes.Buffer
		zip := gzip.NewWriter(&b)
		if _, err := zip.Write(archive); err != nil || zip.Close() != nil {
			t.Fatal(err)
		}
		unpackInto(t, b.Bytes(), anything)
	})
}
