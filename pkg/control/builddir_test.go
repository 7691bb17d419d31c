package control

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestWhatIsBuiltFrom(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string]string{
		"Dockerfile": "FROM scratch", ".dockerignore": "*\n!keep\n!src/*.go\n", "keep/a": "a", "src/x.go": "x", "src/x.o": "o", "secret": "s", ".git/config": "c",
	} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(data), 0o640)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../../etc/passwd", filepath.Join(dir, "keep", "link")); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "keep", "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var b bytes.Buffer
	if err := packDir(&b, Build{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	var names []string
	for in := tar.NewReader(&b); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" {
			t.Errorf("%s is somebody's: %d %d %s", h.Name, h.Uid, h.Gid, h.Uname)
		}
		if h.Name == "keep/link" && (h.Typeflag != tar.TypeSymlink || h.Linkname != "../../etc/passwd") {
			t.Errorf("a link was followed: %+v", h)
		}
		names = append(names, h.Name)
	}
	want := []string{".dockerignore", "Dockerfile", "keep/", "keep/a", "keep/link", "src/x.go"}
	if !slices.Equal(names, want) {
		t.Errorf("got  %q\nwant %q", names, want)
	}
	if err := os.WriteFile(filepath.Join(dir, ".dockerignore"), []byte("[\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := packDir(io.Discard, Build{Dir: dir}); err == nil {
		t.Error("a pattern that cannot be read is passed over")
	}
}
