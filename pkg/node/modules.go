package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"peercompute/pkg/mesh"
	"peercompute/pkg/wire"
)

// maxModules bounds all stored modules together, in bytes.
const maxModules = 2 << 30

// Modules keeps WASM modules by digest, as files that are complete if they are
// there at all.
type Modules struct {
	dir string
	max int64 // bytes of all modules together

	mu sync.Mutex // one change at a time
}

// OpenModules opens the module store in a node's home.
func OpenModules(home string) (*Modules, error) {
	return openModules(filepath.Join(home, "modules"), maxModules)
}

func openModules(dir string, max int64) (*Modules, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	stale, err := filepath.Glob(filepath.Join(dir, ".upload-*"))
	for _, f := range stale {
		err = errors.Join(err, os.Remove(f))
	}
	return &Modules{dir: dir, max: max}, err
}

func (m *Modules) file(digest string) (string, error) {
	if !mesh.ValidDigest(digest) {
		return "", mesh.Errorf(mesh.Invalid, "%q is not a digest", digest)
	}
	return filepath.Join(m.dir, digest[len("sha256:"):]+".wasm"), nil
}

// Path is the file of a module; mesh.NotFound if it is not here.
func (m *Modules) Path(digest string) (string, error) {
	path, err := m.file(digest)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "", mesh.Errorf(mesh.NotFound, "the module %s is not here", digest).WithHint("deploy it from its file, which sends it along")
	}
	return path, nil
}

// put stores what r gives: at most wire.MaxModule bytes. With a wanted digest,
// anything else is refused. unused says which modules may be dropped for room.
func (m *Modules) put(ctx context.Context, r io.Reader, wanted string, inUse func() (map[string]bool, error)) (digest string, size int64, err error) {
	tmp, err := os.CreateTemp(m.dir, ".upload-*")
	if err != nil {
		return "", 0, err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	h := sha256.New()
	size, err = io.Copy(io.MultiWriter(tmp, h), io.LimitReader(r, wire.MaxModule+1))
	if err != nil {
		return "", size, fmt.Errorf("cannot receive the module: %w", err)
	}
	if size > wire.MaxModule {
		return "", size, mesh.Errorf(mesh.TooLarge, "the module is over %d MiB", wire.MaxModule>>20).WithRule("host.module-size")
	}
	digest = "sha256:" + hex.EncodeToString(h.Sum(nil))
	if wanted != "" && digest != wanted {
		return "", size, mesh.Errorf(mesh.Forged, "the module's bytes do not match its digest").WithRule("module.digest")
	}
	path, err := m.file(digest)
	if err != nil {
		return "", size, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return "", size, err
	}
	if err := m.makeRoom(size, inUse); err != nil {
		return "", size, err
	}
	if err := errors.Join(tmp.Sync(), os.Rename(tmp.Name(), path), syncDir(m.dir)); err != nil {
		return "", size, err
	}
	return digest, size, nil
}

// makeRoom drops modules that nothing uses, oldest first, until size more fit.
func (m *Modules) makeRoom(size int64, inUse func() (map[string]bool, error)) error {
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		return err
	}
	total := size
	type file struct {
		name string
		info os.FileInfo
	}
	var files []file
	for _, e := range entries {
		if info, err := e.Info(); err == nil && filepath.Ext(e.Name()) == ".wasm" {
			total += info.Size()
			files = append(files, file{e.Name(), info})
		}
	}
	if total <= m.max {
		return nil
	}
	used, err := inUse()
	if err != nil {
		return err
	}
	for total > m.max {
		oldest := -1
		for i, f := range files {
			digest := "sha256:" + f.name[:len(f.name)-len(".wasm")]
			if !used[digest] && (oldest < 0 || f.info.ModTime().Before(files[oldest].info.ModTime())) {
				oldest = i
			}
		}
		if oldest < 0 {
			return mesh.Errorf(mesh.Quota, "there is no room for more modules here: %d MiB are in use", m.max>>20).WithRule("host.modules")
		}
		if err := os.Remove(filepath.Join(m.dir, files[oldest].name)); err != nil {
			return err
		}
		total -= files[oldest].info.Size()
		files = append(files[:oldest], files[oldest+1:]...)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
