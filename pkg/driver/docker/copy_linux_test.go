package docker_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/archive"
	"peercompute/pkg/driver"
	"peercompute/pkg/driver/docker/dockertest"
	"peercompute/pkg/mesh"
)

// entry is one entry of an archive; content is where a link leads to.
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
			if _, err := w.Write([]byte(e.content)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func names(t testing.TB, archive []byte) map[string]string {
	t.Helper()
	out := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out[h.Name] = string(b) + h.Linkname
	}
}

// What is copied is read and written as the container's own user, beneath its own
// root, and nowhere that is not its to write.
func TestCopy(t *testing.T) {
	needEngine(t)
	if _, runtime := dockertest.Chosen(); strings.HasPrefix(runtime, "runsc") {
		t.Skip("gVisor keeps the files of its containers to itself")
	}
	program, err := os.ReadFile(dockertest.Program(t, "testdata/actor"))
	if err != nil {
		t.Fatal(err)
	}
	layer := tarOf(t,
		entry{tar.TypeReg, "program", 0o755, string(program)},
		entry{tar.TypeDir, "open", 0o777, ""}, entry{tar.TypeReg, "open/readable", 0o644, "for all"},
		entry{tar.TypeReg, "open/private", 0o600, "root's"}, entry{tar.TypeSymlink, "open/out", 0o777, "../../../../etc/hostname"},
		entry{tar.TypeReg, "etc/hostname-of-image", 0o644, "the image's"}, entry{tar.TypeSymlink, "abs", 0o777, "/etc/hostname-of-image"},
		entry{tar.TypeSymlink, "up", 0o777, "../../../../../../etc/hostname-of-image"},
	)
	ref, _ := dockertest.Load(t, "/program", layer)
	d := open(t, newNode(t))
	s := spec(ref, "serve")
	s.Resources.Disk = 4 << 20
	task := start(t, d, workload(s))
	c, can := task.(driver.Copier)
	if !can {
		t.Fatal("files cannot be copied")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out := func(path string) (map[string]string, archive.Report, error) {
		var b bytes.Buffer
		r, err := c.CopyOut(ctx, path, &b)
		if err != nil {
			return nil, r, err
		}
		return names(t, b.Bytes()), r, nil
	}
	in := func(path string, tree bool, all ...entry) error {
		_, err := c.CopyIn(ctx, driver.CopyTo{Path: path, Tree: tree}, bytes.NewReader(tarOf(t, all...)))
		return err
	}

	// Links mean what they mean inside, and what only root may read stays unread.
	for _, path := range []string{"/abs", "/up", "/etc/hostname-of-image"} {
		if got, _, err := out(path); err != nil || len(got) != 1 || got[archive.Base(path)] != "the image's" {
			t.Errorf("%s: %v, %v", path, got, err)
		}
	}
	got, r, err := out("/open")
	if err != nil || got["open/readable"] != "for all" || got["open/out"] != "../../../../etc/hostname" || r.Skipped != 1 || !strings.Contains(r.First, "private") {
		t.Errorf("a directory: %v, %+v, %v", got, r, err)
	}
	if _, _, err := out("/open/private"); mesh.KindOf(err) != mesh.Denied {
		t.Errorf("a file that only root may read: %v", err)
	}
	if _, _, err := out("/nowhere"); mesh.KindOf(err) != mesh.NotFound {
		t.Errorf("a file that is not there: %v", err)
	}
	for _, path := range []string{"/proc/1/environ", "/proc/self/root/etc/passwd", "/sys/kernel", "/dev/null", "/proc/1/root"} {
		if got, _, err := out(path); err == nil {
			t.Errorf("%s was copied: %d entries", path, len(got))
		}
	}

	// It lands in the scratch as the program's own, without what gives rights.
	file := func(name, content string) entry { return entry{tar.TypeReg, name, 0o6755, content} }
	dir := func(name string) entry { return entry{tar.TypeDir, name, 0o755, ""} }
	if err := in("/tmp/", true, dir("tree/"), file("tree/a", "first"), entry{tar.TypeSymlink, "tree/link", 0o777, "a"}); err != nil {
		t.Errorf("a tree into a directory: %v", err)
	}
	if err := in("/tmp/new", true, dir("tree/"), file("tree/b", "second")); err != nil {
		t.Errorf("a tree under a new name: %v", err)
	}
	if err := in("/tmp/new", true, dir("./"), file("./c", "third")); err != nil {
		t.Errorf("the contents of a tree: %v", err)
	}
	got, _, err = out("/tmp/.")
	if err != nil || got["./tree/a"] != "first" || got["./tree/link"] != "a" || got["./new/b"] != "second" || got["./new/c"] != "third" {
		t.Errorf("what was copied in: %v, %v", got, err)
	}
	x := task.(driver.Execer)
	var said bytes.Buffer
	if code, err := x.Exec(ctx, driver.Exec{Argv: []string{"/program", "stat", "/tmp/tree/a"}, Stdout: &said, Stderr: &said}); err != nil || code != 0 || said.String() != "-rwxr-xr-x mine true\n" {
		t.Errorf("to the program it is %q (%d, %v)", said.String(), code, err)
	}

	// Nowhere else, whatever the archive or a path says.
	for _, c := range []struct {
		name, path string
		tree       bool
		all        []entry
		kind       mesh.Kind
		says       string
	}{
		{"a directory of the image that all may write to", "/open", false, []entry{file("x", "x")}, mesh.Denied, "read-only"},
		{"the root", "/", false, []entry{file("x", "x")}, mesh.Denied, ""},
		{"the kernel's", "/proc/sys/kernel", false, []entry{file("core_pattern", "x")}, mesh.Invalid, "the kernel's"},
		{"its devices", "/dev", false, []entry{file("x", "x")}, mesh.Denied, ""},
		{"up", "/tmp/tree", false, []entry{file("../x", "x")}, mesh.Invalid, "not below"},
		{"through a link", "/tmp", false, []entry{{tar.TypeSymlink, "l", 0o777, "/tmp/new"}, file("l/x", "x")}, mesh.Invalid, "symbolic link"},
		{"over a directory", "/tmp", false, []entry{file("new", "x")}, mesh.Invalid, "a directory is in its place"},
		{"more than there is room for", "/tmp", false, []entry{file("big", strings.Repeat("x", 5<<20))}, mesh.Quota, "disk"},
		{"a directory that is not there", "/tmp/a/b", true, []entry{file("x", "x")}, mesh.NotFound, ""},
	} {
		if err := in(c.path, c.tree, c.all...); mesh.KindOf(err) != c.kind || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %v that says %q", c.name, err, c.kind, c.says)
		}
	}

	// A copy ends with who asked for it, in the middle too.
	cut, stop := context.WithCancelCause(ctx)
	never, w := io.Pipe()
	defer w.Close()
	done := make(chan error, 1)
	go func() {
		_, err := c.CopyIn(cut, driver.CopyTo{Path: "/tmp"}, never)
		never.Close()
		done <- err
	}()
	if _, err := w.Write(tarOf(t, file("half", "x"))[:512]); err != nil { // it is under way
		t.Fatal(err)
	}
	why := errors.New("over")
	stop(why)
	if err := <-done; !errors.Is(err, why) {
		t.Errorf("cut off: %v", err)
	}
}

// What a copy uses counts as the container's: its memory is not peerd's to give.
func TestCopyCountsAgainstTheContainer(t *testing.T) {
	needEngine(t)
	if _, runtime := dockertest.Chosen(); strings.HasPrefix(runtime, "runsc") {
		t.Skip("gVisor keeps the files of its containers to itself")
	}
	d := open(t, newNode(t))
	s := spec(dockertest.Image(t, "testdata/actor"), "serve")
	s.Resources.Memory, s.Resources.Disk = 64<<20, 1<<30
	task := start(t, d, workload(s))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, w := io.Pipe()
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		out := tar.NewWriter(w)
		_ = out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "big", Mode: 0o600, Size: 160 << 20})
		_, err := io.CopyN(out, zeros{}, 160<<20)
		w.CloseWithError(err)
	}()
	_, err := task.(driver.Copier).CopyIn(ctx, driver.CopyTo{Path: "/tmp"}, r)
	r.Close()
	<-fed
	if mesh.KindOf(err) != mesh.OutOfMemory {
		t.Errorf("160 MiB into a container of 64: %v, want OutOfMemory", err)
	}
	used, err := task.Stats(ctx)
	if err != nil || used.Memory > 64<<20 || used.Disk > 64<<20 {
		t.Errorf("it still runs and has %+v, %v", used, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
