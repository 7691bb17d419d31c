package control

import (
	"path/filepath"
	"testing"

	"peercompute/pkg/mesh"
)

func TestDefaultHome(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(HomeEnv, dir)
	if got, err := DefaultHome(); err != nil || got != dir {
		t.Errorf("with %s set: got %q, %v, want %q", HomeEnv, got, err, dir)
	}
	t.Setenv(HomeEnv, "")
	t.Setenv("HOME", dir)
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("AppData", dir)
	got, err := DefaultHome()
	if err != nil || filepath.Base(got) != "peercompute" {
		t.Errorf("without %s: got %q, %v", HomeEnv, got, err)
	}
	if rel, err := filepath.Rel(dir, got); err != nil || rel == "" || rel[0] == '.' && rel[1] == '.' {
		t.Errorf("%q is not inside the user's own directory %q", got, dir)
	}
}

func TestDefaultHomeUnknown(t *testing.T) {
	for _, k := range []string{HomeEnv, "HOME", "XDG_CONFIG_HOME", "AppData", "home"} {
		t.Setenv(k, "")
	}
	if got, err := DefaultHome(); mesh.KindOf(err) != mesh.Invalid || mesh.AsError(err).Hint == "" {
		t.Errorf("got %q, %v, want an Invalid error with a hint", got, err)
	}
}
