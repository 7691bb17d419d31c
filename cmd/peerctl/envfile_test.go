package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"peercompute/pkg/mesh"
)

func TestParseEnvFile(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"plain", "A=1\nB=2\n", "A=1|B=2"},
		{"no last line feed", "A=1", "A=1"},
		{"windows", "\ufeffA=1\r\nB=2\r\n", "A=1|B=2"},
		{"comments and blanks", "# c\n\n  \n  A=1\n\t# c", "A=1"},
		{"values stay as they are", "A=\"x y\" # z \nB==\nC=", `A="x y" # z |B==|C=`},
		{"empty", "", ""},
	} {
		got, err := parseEnvFile(c.text)
		if err != nil || strings.Join(got, "|") != c.want {
			t.Errorf("%s: got %q, %v, want %q", c.name, got, err, c.want)
		}
	}
	for text, want := range map[string]string{
		"A=1\nwords": "line 2", "=x": "line 1", "A B=1": "line 1", "export A=1": "line 1", "A=\x00": "line 1", "A\x1b=1": "line 1",
	} {
		if got, err := parseEnvFile(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %q, %v, want an error about %s", text, got, err, want)
		}
	}
}

func TestEnvironmentOrder(t *testing.T) {
	dir := t.TempDir()
	one, two := filepath.Join(dir, "1"), filepath.Join(dir, "2")
	write(t, one, "A=file1\nB=file1")
	write(t, two, "B=file2\nC=file2")
	a := &app{stdio: stdio{env: func(k string) (string, bool) { return "mine", k == "D" }}}
	got, err := a.environment([]string{one, two}, []string{"C=flag", "D", "A=x=y"})
	if want := []string{"A=x=y", "B=file2", "C=flag", "D=mine"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestEnvFileTooLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "big")
	write(t, path, "A="+strings.Repeat("x", mesh.MaxStrings))
	if _, err := readEnvFile(path); err == nil || !strings.Contains(err.Error(), "over 64 KiB") {
		t.Errorf("error = %v, want one about the size", err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// FuzzParseEnvFile checks that whatever is accepted can be an environment, and
// reads the same when it is written out again.
func FuzzParseEnvFile(f *testing.F) {
	f.Add("A=1\r\n# c\nB==\n")
	f.Add("\ufeffA=1")
	f.Fuzz(func(t *testing.T, text string) {
		env, err := parseEnvFile(text)
		if err != nil {
			return
		}
		for _, e := range env {
			if k, _, ok := strings.Cut(e, "="); !ok || checkKey(k) != nil || strings.ContainsAny(e, "\x00\n") {
				t.Fatalf("accepted %q", e)
			}
		}
		again, err := parseEnvFile(strings.Join(env, "\n") + "\n")
		if err != nil || !slices.Equal(again, env) {
			t.Fatalf("%q reads as %q again, %v", env, again, err)
		}
	})
}
