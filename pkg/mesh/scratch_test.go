package mesh

import (
	"strings"
	"testing"
)

func TestScratchDir(t *testing.T) {
	for dir, want := range map[string]string{"/run": "/run", "/var/cache/nginx/": "/var/cache/nginx", "/a/../b": "/b", "/process": "/process"} {
		if got, err := ScratchDir(dir); err != nil || got != want {
			t.Errorf("%q: got %q, %v", dir, got, err)
		}
	}
	for _, dir := range []string{"", "/", "run", "../run", "/proc", "/proc/x", "/sys", "/dev/shm", "/x/../proc", "/a:b", "/a,exec", "/a\x00", "/a\nb", "/" + strings.Repeat("x", 300)} {
		if got, err := ScratchDir(dir); KindOf(err) != Invalid {
			t.Errorf("%q: got %q, %v; want a refusal", dir, got, err)
		}
	}
	s := Spec{Name: "x", Runtime: Container, Image: "x", Tmpfs: []string{"/run", "/proc", "data"}}
	if err := s.Validate(); err == nil || !strings.Contains(err.Error(), `"/proc"`) || !strings.Contains(err.Error(), `"data"`) {
		t.Errorf("got %v, want both named", err)
	}
	if s.Tmpfs = make([]string, MaxTmpfs+1); s.Validate() == nil {
		t.Error("any number of directories")
	}
	s = Spec{Name: "x", Runtime: Wasm, Shape: HTTP, Digest: "sha256:" + strings.Repeat("0", 64), Tmpfs: []string{"/run"}}
	if s.Validate() == nil {
		t.Error("a guest with directories of a container")
	}
}

func FuzzScratchDir(f *testing.F) {
	for _, dir := range []string{"/run", "/var/lib/x/", "/a/../proc", "//dev", "/a:b", "."} {
		f.Add(dir)
	}
	f.Fuzz(func(t *testing.T, dir string) {
		got, err := ScratchDir(dir)
		if err != nil {
			return
		}
		if again, err := ScratchDir(got); err != nil || again != got || got[0] != '/' || strings.ContainsAny(got, ":,\x00\n") ||
			got == "/dev" || strings.HasPrefix(got, "/dev/") || strings.HasPrefix(got, "/proc/") || strings.Contains(got, "/../") {
			t.Errorf("%q became %q", dir, got)
		}
	})
}
