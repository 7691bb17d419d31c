package e2e

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"peercompute/test/internal/testmesh"
)

func TestSecrets(t *testing.T) {
	t.Parallel()
	image := actorImage(t)
	m := testmesh.New(t)
	alice, bob, carol := m.Peer("alice"), m.Peer("bob"), m.Peer("carol")
	m.Lend(bob, alice)
	m.Lend(bob, carol)
	bob.Must("peers", "allow", "alice", "--allow", "deploy,observe,exec")
	first, second := "first-"+rand.Text(), "second-"+rand.Text()
	set := func(value string) {
		t.Helper()
		if r := alice.CtlIn([]byte(value), "secret", "set", "db", "--peer", "bob"); r.Code != 0 {
			t.Fatalf("secret set: %s", r.Stderr)
		}
	}
	read := func() string {
		t.Helper()
		out := filepath.Join(t.TempDir(), "out")
		alice.Must("cp", "box:/run/secrets/password", out)
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}

	refused(t, alice.Ctl("deploy", image, "--peer", "bob", "--name", "box", "--secret", "db:password", "--", "serve"), "bob", "no secret db", "[secret.missing]")
	refused(t, alice.Ctl("explain", image, "--peer", "bob", "--name", "box", "--secret", "db:password"), "no secret db", "[secret.missing]", "peerctl secret set db --peer bob")
	set(first)
	refused(t, carol.Ctl("deploy", image, "--peer", "bob", "--name", "box", "--secret", "db", "--", "serve"), "bob", "no secret db")
	refused(t, alice.Ctl("deploy", testmesh.Tiny(t, "hello"), "--peer", "bob", "--secret", "db"), "--secret is for containers")
	w := deploy(t, alice, image, "--peer", "bob", "--name", "box", "--port", "8080", "--secret", "db:password", "--", "serve")
	if got := read(); got != first {
		t.Errorf("the program reads %q", got)
	}
	if r := alice.Ctl("exec", "box", "--", "/program", "stat", "/run/secrets/password"); r.Stdout != "-r-------- mine true\n" {
		t.Errorf("it is %q %s", r.Stdout, r.Stderr)
	}
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, alice.Ctl("cp", other, "box:/run/secrets/x"), "read-only")

	// A new value comes with the next start, and the old one goes.
	set(second)
	if got := read(); got != first {
		t.Errorf("the program that runs reads %q", got)
	}
	alice.Must("restart", "box")
	within(t, 30*time.Second, "it to run again", func() bool { return alice.Ctl("exec", "box", "--", "/program", "stat", "/tmp").Code == 0 })
	if got := read(); got != second {
		t.Errorf("begun anew it reads %q", got)
	}
	bob.Kill()
	bob.Start()
	within(t, 30*time.Second, "it to be adopted", func() bool { return alice.Ctl("exec", "box", "--", "/program", "stat", "/tmp").Code == 0 })
	if got := read(); got != second {
		t.Errorf("after kill -9 of peerd it reads %q", got)
	}

	// Nothing else knows the value.
	engine, err := exec.CommandContext(t.Context(), "docker", "inspect", bob.Containers()[w.ID].ID).Output()
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]string{
		"docker inspect": string(engine), "inspect": alice.Must("inspect", "box", "-o", "json"), "audit": bob.Must("audit", "-o", "json"),
		"secret ls": alice.Must("secret", "ls", "--peer", "bob", "-o", "json"), "bob's log": bob.Log(), "alice's log": alice.Log(), "events": bob.Must("events", "-o", "json"),
	}
	if !strings.Contains(told["audit"], "set-secret") || !strings.Contains(told["secret ls"], `"box"`) {
		t.Errorf("audit %s\nsecret ls %s", told["audit"], told["secret ls"])
	}
	files, err := filepath.Glob("/proc/[0-9]*/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if base := filepath.Base(f); base == "environ" || base == "cmdline" {
			b, _ := os.ReadFile(f) // most are gone or another's
			told[f] = string(b)
		}
	}
	for _, home := range []string{alice.Home, bob.Home} {
		err := filepath.WalkDir(home, func(p string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) { // it is in use
				return nil
			}
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(p)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			told[p] = string(b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for where, b := range told {
		for _, value := range []string{first, second} {
			if strings.Contains(b, value) {
				t.Errorf("%s has a secret's value", where)
			}
		}
	}

	// It goes with its run, and can be forgotten once nothing gets it.
	refused(t, alice.Ctl("secret", "rm", "db", "--peer", "bob"), "bob refused", "in use by box")
	alice.Must("rm", "-f", "box")
	within(t, 30*time.Second, "its files to go", func() bool { return !inMemory(t, second) })
	alice.Must("secret", "rm", "db", "--peer", "bob")
	if got := strings.TrimSpace(alice.Must("secret", "ls", "--peer", "bob", "-o", "json")); got != "[]" {
		t.Errorf("afterwards there are %s", got)
	}

	// They go with whose they are.
	set(first)
	bob.Must("peers", "remove", "alice")
	m.Lend(bob, alice)
	if got := strings.TrimSpace(alice.Must("secret", "ls", "--peer", "bob", "-o", "json")); got != "[]" {
		t.Errorf("trusted again, alice has %s", got)
	}
}

// inMemory reports whether a file that peerd made in memory holds a value.
func inMemory(t *testing.T, value string) bool {
	t.Helper()
	found := false
	for _, dir := range []string{"/run", "/dev/shm"} {
		bases, err := filepath.Glob(dir + "/peercompute-*/*/*")
		if err != nil {
			t.Fatal(err)
		}
		found = found || slices.ContainsFunc(bases, func(f string) bool {
			b, err := os.ReadFile(f)
			return err == nil && bytes.Contains(b, []byte(value))
		})
	}
	return found
}
