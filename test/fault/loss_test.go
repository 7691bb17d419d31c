package fault

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"peercompute/pkg/identity"
	"peercompute/pkg/member"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/trust"
)

// home is what a node's directory holds, file by file.
type home map[string][]byte

func readHome(t *testing.T, dir string) home {
	t.Helper()
	h := home{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		h[d.Name()] = data
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (h home) write(t *testing.T, dir string) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	for name, data := range h {
		if data == nil {
			continue // deleted
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func (h home) with(name string, data []byte) home {
	c := home{}
	for k, v := range h {
		c[k] = v
	}
	c[name] = data
	return c
}

func openHome(dir string) (*member.Member, error) {
	return member.Open(member.Config{Home: dir, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Role: "peer", Log: slog.New(slog.DiscardHandler)})
}

// Each file of a node's home is deleted, emptied, cut, rolled back, taken from another
// home, and flipped at random. The node starts only with exactly what it had, or says
// what is wrong and what to do: it never goes on from less (test plan, partial loss).
func TestPartialLoss(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(inMemory(t), "home")
	life := func(dir string, peers int) (older, latest home, id mesh.PeerID, trusted []mesh.PeerID) {
		t.Helper()
		for i := range peers {
			m, err := openHome(dir)
			if err != nil {
				t.Fatal(err)
			}
			id = m.Key.ID
			k, err := identity.Create(t.TempDir())
			if err == nil {
				err = m.Trust.Put(t.Context(), trust.Grant{Peer: k.ID, Name: string(rune('a' + i)), Allow: trust.Deploy, Quota: trust.DefaultQuota()})
			}
			if err := errors.Join(err, m.Close()); err != nil {
				t.Fatal(err)
			}
			trusted = append(trusted, k.ID)
			older, latest = latest, readHome(t, dir)
		}
		return older, latest, id, trusted
	}
	_, foreign, _, _ := life(filepath.Join(inMemory(t), "other"), 3)
	older, latest, id, trusted := life(dir, 3)

	same, refused := 0, 0
	// try starts the node on a home and reports what is wrong with the outcome.
	try := func(what string, h home, mayStart bool) {
		t.Helper()
		h.write(t, dir)
		m, err := openHome(dir)
		if err != nil {
			refused++
			if e := mesh.AsError(err); e.Hint == "" {
				t.Errorf("%s: refused without a next step: %v", what, err)
			}
			return
		}
		defer m.Close()
		same++
		if !mayStart {
			t.Errorf("%s: the node starts", what)
		}
		for _, p := range trusted {
			if !m.Trust.Allowed(p) {
				t.Errorf("%s: the node starts, and a peer is forgotten", what)
			}
		}
		if m.Key.ID != id || len(m.Trust.All()) != len(trusted) {
			t.Errorf("%s: the node starts as %s with %d peers", what, m.Key.ID, len(m.Trust.All()))
		}
	}
	try("untouched", latest, true)
	mark := store.FileName + store.MarkSuffix
	for _, name := range []string{identity.KeyFile, store.FileName, mark, "lock"} {
		if _, ok := latest[name]; !ok {
			t.Fatalf("the home has no %s: %v", name, len(latest))
		}
		harmless := name == "lock" // it holds nothing
		try(name+" deleted", latest.with(name, nil), harmless)
		try(name+" emptied", latest.with(name, []byte{}), harmless)
		try(name+" of another node", latest.with(name, foreign[name]), harmless)
		// The key never changes, and an older mark is what a power loss leaves.
		try(name+" rolled back", latest.with(name, older[name]), name != store.FileName)
		for range scale(40) {
			data := latest[name]
			if len(data) == 0 {
				break
			}
			try(name+" cut", latest.with(name, data[:rand.IntN(len(data))]), name != mark) // a cut may take only what nothing uses
			at := rand.IntN(len(data) * 8)
			bad := bytes.Clone(data)
			bad[at/8] ^= 1 << (at % 8)
			try(name+" flipped", latest.with(name, bad), name != mark) // where nothing lies, or a line's end
		}
	}
	try("key and state of another node", latest.with(identity.KeyFile, foreign[identity.KeyFile]).with(store.FileName, foreign[store.FileName]), false)
	try("state and mark of another node", latest.with(mark, foreign[mark]).with(store.FileName, foreign[store.FileName]), false)
	t.Logf("%d times refused with a next step, %d times started with all it had", refused, same)
}
