package e2e

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peercompute/test/internal/testmesh"
)

func TestCopy(t *testing.T) {
	t.Parallel()
	image := actorImage(t)
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.Peer("bob")
	m.Lend(bob, alice)
	deploy(t, alice, image, "--peer", "bob", "--name", "box", "--port", "8080", "--", "serve")
	deploy(t, alice, testmesh.Tiny(t, "hello"), "--peer", "bob", "--name", "guest")
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	big := repeat("0123456789abcdef", 3<<20)
	for name, content := range map[string][]byte{"site/index.html": []byte("<p>hello"), "site/img/big": big, "one": []byte("just one")} {
		if err := os.MkdirAll(filepath.Dir(at(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at(name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}

	// To deploy is not to enter: that is a right of its own.
	refused(t, alice.Ctl("cp", at("one"), "box:/tmp/"), "bob refused", "[grant.exec]", "--allow deploy,exec")
	refused(t, alice.Ctl("cp", "box:/tmp", at("none")), "bob refused", "[grant.exec]")
	bob.Must("peers", "allow", "alice", "--allow", "deploy,observe,exec")

	alice.Must("cp", at("site"), "box:/tmp")
	alice.Must("cp", at("one"), "box:/tmp/site/two")
	alice.Must("cp", "box:/tmp/site", at("back"))
	for name, want := range map[string]string{"index.html": "<p>hello", "img/big": string(big), "two": "just one"} {
		if b, err := os.ReadFile(at("back/" + name)); err != nil || string(b) != want {
			t.Errorf("%s came back with %d bytes, %v", name, len(b), err)
		}
	}
	r := alice.Ctl("cp", "box:/tmp/site/two", "-")
	in := tar.NewReader(strings.NewReader(r.Stdout))
	h, err := in.Next()
	if err != nil || h.Name != "two" || h.Uname != "" {
		t.Fatalf("the archive begins with %+v, %v: %s", h, err, r.Stderr)
	}
	if b, err := io.ReadAll(in); err != nil || string(b) != "just one" {
		t.Errorf("the archive holds %q, %v", b, err)
	}
	if r := alice.CtlIn([]byte(r.Stdout), "cp", "-", "box:/tmp/site/img"); r.Code != 0 {
		t.Errorf("an archive from the input: %s", r.Stderr)
	}
	// The owner of the machine needs no grant.
	bob.Must("cp", "box:/tmp/site/img/two", at("bobs"))
	if b, err := os.ReadFile(at("bobs")); err != nil || string(b) != "just one" {
		t.Errorf("locally: %q, %v", b, err)
	}

	refused(t, alice.Ctl("cp", at("one"), "box:/etc/one"), "bob refused", "read-only")
	refused(t, alice.Ctl("cp", at("one"), "box:/"), "bob refused", "the workload can write below /tmp")
	refused(t, alice.Ctl("cp", "box:/tmp/nothing", at("x")), "no such file")
	refused(t, alice.Ctl("cp", "box:/proc/1/environ", at("x")), "the kernel's")
	refused(t, alice.Ctl("cp", at("one"), "guest:/tmp"), "no files can be copied into or out of a WASM guest")
	refused(t, alice.Ctl("cp", "--max", "1M", "box:/tmp/site", at("little")), "more to copy", "--max")

	log := bob.Must("audit", "--peer", "alice", "-o", "json")
	if !strings.Contains(log, "copy-in") || !strings.Contains(log, "copy-out") || !strings.Contains(log, `/tmp/site/two`) || strings.Contains(log, "just one") {
		t.Errorf("the audit log:\n%s", log)
	}

	// The right is taken back in the middle: it ends then, and is not taken for whole.
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	defer pw.Close()
	b := begin(t, alice, pr, "cp", "-", "box:/tmp")
	var head bytes.Buffer
	w := tar.NewWriter(&head)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "half", Mode: 0o600, Size: 100 << 10}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 50<<10)); err != nil {
		t.Fatal(err)
	}
	if _, err := pw.Write(head.Bytes()); err != nil {
		t.Fatal(err)
	}
	within(t, 20*time.Second, "the copy to begin", func() bool {
		return bob.Ctl("cp", "box:/tmp/half", "-").Code == 0
	})
	bob.Must("peers", "allow", "alice", "--allow", "deploy,observe")
	if code := b.wait(t, 20*time.Second); code == 0 {
		t.Error("a copy went well whose right was taken back")
	}
}
