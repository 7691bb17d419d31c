package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

const (
	wasmMagic     = "\x00asm"
	coreHeader    = wasmMagic + "\x01\x00\x00\x00"
	componentMark = "\x01\x00" // bytes 6 and 7: the layer, 1 for components
)

const buildHint = "a Go program becomes a module with: GOOS=wasip1 GOARCH=wasm go build -o app.wasm ."

// isModule decides whether the word given to deploy is a WASM file; if not, it is
// an image reference.
func isModule(target string) (bool, error) {
	if strings.EqualFold(filepath.Ext(target), ".wasm") {
		return true, nil
	}
	isPath := strings.HasPrefix(target, ".") || filepath.IsAbs(target)
	f, err := os.Open(target)
	if err != nil {
		if isPath {
			return false, usagef("cannot open %s: %s", target, root(err)).
				hint("deploy takes an image such as nginx:1.27, or a .wasm file")
		}
		return false, nil
	}
	defer f.Close()
	head := make([]byte, len(wasmMagic))
	if _, err := io.ReadFull(f, head); err == nil && string(head) == wasmMagic {
		return true, nil
	}
	if isPath {
		return false, usagef("%s is not a WASM module, and an image name cannot begin that way", target).hint(buildHint)
	}
	return false, nil
}

// module is a WASM file that was found to be one.
type module struct {
	file   *os.File
	digest string // sha256:…
	size   int64  // bytes
}

func (m *module) Close() error { return m.file.Close() }

func (m *module) name() string { return filepath.Base(m.file.Name()) }

// openModule opens a WASM file and reads it once, for its header and its digest.
func openModule(path string) (*module, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usagef("there is no file %s", path).hint(buildHint)
	}
	if err != nil {
		return nil, usagef("cannot open %s: %s", path, root(err))
	}
	m := &module{file: f}
	if err := m.read(path); err != nil {
		f.Close()
		return nil, err
	}
	return m, nil
}

func (m *module) read(path string) error {
	if info, err := m.file.Stat(); err == nil && !info.Mode().IsRegular() {
		return usagef("%s is not a file", path)
	}
	head := make([]byte, len(coreHeader))
	n, err := io.ReadFull(m.file, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return usagef("cannot read %s: %s", path, root(err))
	}
	if err := checkHeader(path, head[:n]); err != nil {
		return err
	}
	h := sha256.New()
	h.Write(head)
	rest, err := io.Copy(h, m.file)
	if err != nil {
		return usagef("cannot read %s: %s", path, root(err))
	}
	m.size = int64(n) + rest
	m.digest = "sha256:" + hex.EncodeToString(h.Sum(nil))
	return nil
}

func checkHeader(path string, head []byte) error {
	switch s := string(head); {
	case s == coreHeader:
		return nil
	case len(s) == len(coreHeader) && strings.HasPrefix(s, wasmMagic) && s[6:] == componentMark:
		return usagef("%s is a WASM component; peers run core modules (WASI preview 1)", path).
			hint("build for wasm32-wasip1 instead of wasip2, without turning the module into a component")
	case strings.HasPrefix(s, wasmMagic):
		return usagef("%s is of a version of WASM that peers do not run, or cut short", path).hint(buildHint)
	case strings.HasPrefix(s, "(module"), strings.HasPrefix(s, "(compone"), strings.HasPrefix(s, ";;"):
		return usagef("%s is WASM text, not a module", path).hint("assemble it with: wat2wasm %s -o app.wasm", path)
	}
	return usagef("%s is not a WASM module", path).hint(buildHint)
}

// upload stores the module on the local node, if it is not there yet.
func (m *module) upload(ctx context.Context, c *control.Client, p *progress) error {
	if _, err := c.Module(ctx, m.digest); err == nil {
		return nil
	}
	if _, err := m.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	defer p.clear()
	got, err := c.UploadModule(ctx, io.TeeReader(m.file, &counter{on: func(n int64) {
		p.bytes("uploading "+m.name(), n, m.size)
	}}))
	if err != nil {
		return err
	}
	if got.Digest != m.digest {
		return mesh.Errorf(mesh.Conflict, "%s changed while it was uploaded", m.file.Name()).
			WithHint("wait for its build to end, then try again")
	}
	return nil
}

// counter is told what went through, and reports how much that was so far.
type counter struct {
	n  int64
	on func(n int64)
}

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	c.on(c.n)
	return len(p), nil
}
