package member

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/audit"
	"peercompute/pkg/backup"
	"peercompute/pkg/control"
	"peercompute/pkg/identity"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/trust"
)

const secret = "correct horse battery"

// backedUp is a node with one peer, its backup, and what it was.
func backedUp(t *testing.T) (data []byte, was *Member, list trust.Snapshot) {
	t.Helper()
	m, err := open(t, t.TempDir(), func(c *Config) { c.WorkFactor = 8 })
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	ctx := t.Context()
	if err := m.Trust.Put(ctx, trust.Grant{Peer: otherPeer(t), Name: "bob", Allow: trust.Deploy, Quota: trust.DefaultQuota(), Added: time.Now().UTC().Round(0)}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Trust.Lock(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := (&api{m: m}).Export(ctx, control.Export{Passphrase: "short"}); mesh.AsError(err).Rule != "backup.passphrase" {
		t.Errorf("a short passphrase: %v", err)
	}
	if data, err = (&api{m: m}).Export(ctx, control.Export{Passphrase: secret}); err != nil {
		t.Fatal(err)
	}
	lines, err := m.Audit.Read(0, 100)
	if err != nil || len(lines) == 0 || lines[len(lines)-1].Action != "identity.export" {
		t.Errorf("the export is not on record: %+v, %v", lines, err)
	}
	return data, m, m.Trust.Snapshot()
}

func TestRestore(t *testing.T) {
	data, was, list := backedUp(t)
	home := filepath.Join(t.TempDir(), "a", "home")
	r, err := Restore(t.Context(), home, data, secret, time.Now)
	if err != nil || r.Node != was.Key.ID || r.Peers != 1 {
		t.Fatalf("got %+v, %v", r, err)
	}
	for _, name := range []string{".", identity.KeyFile, store.FileName} {
		if info, err := os.Stat(filepath.Join(home, name)); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	m := mustOpen(t, home)
	defer m.Close()
	if m.Key.ID != was.Key.ID || !m.Key.Private.Equals(was.Key.Private) {
		t.Error("it has another key")
	}
	if got := m.Trust.Snapshot(); !reflect.DeepEqual(got, list) {
		t.Errorf("trusts %+v, want %+v", got, list)
	}
	if m.Store.Incarnation() == was.Store.Incarnation() {
		t.Error("it has the former incarnation: requests that were signed for it would count again")
	}
	if _, err := m.Audit.Verify(); err != nil {
		t.Error(err)
	}
	lines, err := m.Audit.Read(0, 100)
	if err != nil || len(lines) != 2 || lines[1].Action != "identity.restore" || lines[1].Outcome != audit.Done {
		t.Errorf("on record: %+v, %v", lines, err)
	}
}

func TestRestoreRefuses(t *testing.T) {
	data, _, _ := backedUp(t)
	parent := t.TempDir()
	home := filepath.Join(parent, "home")
	c, _, err := backup.Open(data, secret)
	if err != nil {
		t.Fatal(err)
	}
	seal := func(change func(*backup.Content)) []byte {
		x := *c
		x.Trust.Grants = append([]trust.Grant(nil), c.Trust.Grants...)
		change(&x)
		out, err := backup.Seal(&x, secret, 8)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, bad := range []struct {
		name, secret string
		data         []byte
	}{
		{"a wrong passphrase", "another one entirely", data},
		{"cut short", secret, data[:len(data)-1]},
		{"a name twice", secret, seal(func(c *backup.Content) {
			g := c.Trust.Grants[0]
			g.Peer = otherPeer(t)
			c.Trust.Grants = append(c.Trust.Grants, g)
		})},
		{"itself as a peer", secret, seal(func(c *backup.Content) { c.Trust.Grants[0].Peer = c.Node })},
		{"a weak first key", secret, seal(func(c *backup.Content) {
			c.Trust.Grants[0].Origin = mesh.PeerID("\x00\x24\x08\x01\x12\x20" + strings.Repeat("\x00", 32))
		})},
		{"a replaced key of nobody", secret, seal(func(c *backup.Content) {
			c.Trust.Retired = []trust.Former{{Key: otherPeer(t), Next: otherPeer(t)}}
		})},
	} {
		if _, err := Restore(t.Context(), home, bad.data, bad.secret, time.Now); err == nil {
			t.Errorf("%s: restored", bad.name)
		}
		if left, _ := os.ReadDir(parent); len(left) != 0 {
			t.Errorf("%s: left %v behind", bad.name, left)
		}
	}
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{identity.KeyFile, store.FileName, "peerd.toml"} {
		path := filepath.Join(home, name)
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Restore(t.Context(), home, data, secret, time.Now); err == nil || mesh.AsError(err).Rule != "restore.empty" {
			t.Errorf("with %s in it: %v", name, err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != "x" {
			t.Errorf("%s was touched: %q, %v", name, got, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Restore(t.Context(), home, data, secret, time.Now); err != nil {
		t.Errorf("into an empty home: %v", err)
	}
}

// Wherever a restore was cut short: no node starts from it, and it can be done again.
func TestRestoreIsDoneAgain(t *testing.T) {
	data, was, _ := backedUp(t)
	whole := filepath.Join(t.TempDir(), "whole")
	if _, err := Restore(t.Context(), whole, data, secret, time.Now); err != nil {
		t.Fatal(err)
	}
	state, err := os.ReadFile(filepath.Join(whole, store.FileName))
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(whole, identity.KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	mark := store.FileName + store.MarkSuffix
	markData, err := os.ReadFile(filepath.Join(whole, mark))
	if err != nil {
		t.Fatal(err)
	}
	for name, files := range map[string]map[string][]byte{
		"at the start":         {},
		"while making a state": {store.FileName + ".new": state[:len(state)/2]},
		"before the key":       {store.FileName: state, mark: markData},
		"while saving the key": {store.FileName: state, mark: markData, ".key-123": key[:9]},
		"at the end":           {store.FileName: state, mark: markData, identity.KeyFile: key},
	} {
		home := filepath.Join(t.TempDir(), "home")
		files[unfinished] = nil
		if err := os.Mkdir(home, 0o700); err != nil {
			t.Fatal(err)
		}
		for f, content := range files {
			if err := os.WriteFile(filepath.Join(home, f), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if m, err := open(t, home); err == nil || mesh.AsError(err).Rule != "restore.unfinished" {
			if m != nil {
				m.Close()
			}
			t.Errorf("%s: it starts: %v", name, err)
		}
		if _, err := Restore(t.Context(), home, data, secret, time.Now); err != nil {
			t.Errorf("%s: again: %v", name, err)
			continue
		}
		if _, err := os.Lstat(filepath.Join(home, unfinished)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the marker stays", name)
		}
		m := mustOpen(t, home)
		if m.Key.ID != was.Key.ID || len(m.Trust.All()) != 1 {
			t.Errorf("%s: %s trusts %v", name, m.Key.ID, m.Trust.All())
		}
		m.Close()
	}
}
