package node

import (
	"context"
	"io"
	"path/filepath"

	"peercompute/pkg/blob"
	"peercompute/pkg/wire"
)

// Bounds of what is kept by digest, in bytes of all together.
const (
	maxModules = 2 << 30
	maxInputs  = 512 << 20
)

// Modules keeps WASM modules by digest.
type Modules struct{ blobs *blob.Store }

// OpenModules opens the module store in a node's home.
func OpenModules(home string) (*Modules, error) {
	s, err := blob.Open(blob.Config{
		Dir: filepath.Join(home, "modules"), Noun: "module", Ext: ".wasm", One: wire.MaxModule, Max: maxModules,
		Hint: "deploy it from its file, which sends it along",
	})
	return &Modules{s}, err
}

// openInputs opens what this node keeps of the inputs of runs that it asked for.
func openInputs(home string) (*blob.Store, error) {
	return blob.Open(blob.Config{
		Dir: filepath.Join(home, "inputs"), Noun: "input", Ext: ".in", One: wire.MaxInput, Max: maxInputs, Loose: true,
		Hint: "give it again with --input FILE",
	})
}

// Path is the file of a module; mesh.NotFound if it is not here.
func (m *Modules) Path(digest string) (string, error) { return m.blobs.Path(digest) }

// use is the size of a module that is here, and keeps it from being dropped soon.
func (m *Modules) use(digest string) (size int64, err error) {
	f, err := m.blobs.Open(digest)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// put stores what r gives: at most wire.MaxModule bytes. With a wanted digest,
// anything else is refused. inUse says which modules may not be dropped for room.
func (m *Modules) put(ctx context.Context, r io.Reader, wanted string, inUse func() (map[string]bool, error)) (digest string, size int64, err error) {
	return m.blobs.Put(ctx, r, wanted, inUse)
}
