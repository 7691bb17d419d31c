package e2e

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/test/internal/testmesh"
)

// Alice loses her machine and restores her backup on another one: bob trusts her as
// before, and what was signed for her lost state is void.
func TestBackup(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.Peer("bob", "--heartbeat", "1s")
	m.Lend(bob, alice)
	s := newSender(t, alice)
	before := s.Seal(t, s.deploy(t, "hello"))
	id := alice.ID()

	dir := t.TempDir()
	file, secret := filepath.Join(dir, "alice.backup"), []byte("correct horse battery\n")
	if r := alice.CtlIn(secret, "identity", "export", "--out", file, "--passphrase-file", "-"); r.Code != 0 {
		t.Fatalf("export: %+v", r)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	restore := func(secret []byte, home string) (stdout, stderr string, err error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := alice.Command(ctx, "restore", file, "--home", home, "--passphrase-file", "-")
		var out, msg bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(secret), &out, &msg
		err = cmd.Run()
		return out.String(), msg.String(), err
	}
	alice.Stop()
	if _, msg, err := restore(secret, alice.Home); err == nil || !strings.Contains(msg, "is not empty") {
		t.Errorf("into the home that is in use: %v, %s", err, msg)
	}
	home := alice.Home + "2"
	if _, msg, err := restore([]byte("correct horse saddle"), home); err == nil || !strings.Contains(msg, "the passphrase does not open this backup") {
		t.Errorf("with a wrong passphrase: %v, %s", err, msg)
	}
	if _, err := os.Stat(home); err == nil {
		t.Error("a wrong passphrase leaves a home behind")
	}
	out, msg, err := restore(secret, home)
	if err != nil || strings.TrimSpace(out) != id.String() || !strings.Contains(msg, "must not run at the same time") {
		t.Fatalf("restore: %v\n%s%s", err, out, msg)
	}

	alice.Home = home
	alice.Start()
	if list := alice.Must("peers", "ls"); alice.ID() != id || !strings.Contains(list, "bob") || !strings.Contains(list, "actor") {
		t.Errorf("%s, peers:\n%s", alice.ID(), list)
	}
	deploy(t, alice, testmesh.Tiny(t, "hello"), "--peer", "bob", "--name", "hello")
	var refused error
	within(t, 20*time.Second, "an answer", func() bool { // the actor's connection has to be made anew
		_, refused = s.send(t, before)
		return mesh.KindOf(refused) != mesh.Unavailable
	})
	refusedBy(t, refused, mesh.Misdirected, "request.incarnation")
	if list := ps(t, alice); len(list) != 1 || list[0].Name != "hello" { // on bob
		t.Errorf("alice has %+v", list)
	}
	alice.Must("audit", "verify")
}
