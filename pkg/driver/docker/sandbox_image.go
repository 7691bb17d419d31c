package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	api "github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"

	"peercompute/pkg/mesh"
)

// A sandbox runs one program that does nothing, from an image that this file makes:
// there is no registry to ask, and nothing in it that could be attacked.
const (
	sandboxRef     = "peercompute/sandbox:1"
	sandboxProgram = "/sandbox"
	maxAnswer      = 1 << 20 // bytes of what the engine says of an image that it loads
)

// waits is the machine code that waits for ever: system call pause, or ppoll of
// nothing where there is no pause, again and again.
var waits = map[string]struct {
	machine uint16 // of ELF
	code    []byte
}{
	"amd64": {62, []byte{0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7}},
	"arm64": {183, words(0xd2800928, 0xd2800000, 0xd2800001, 0xd2800002, 0xd2800003, 0xd2800004, 0xd4000001, 0x17fffff9)},
}

func words(w ...uint32) (b []byte) {
	for _, v := range w {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

// sandboxELF is the program: an ELF header, one segment to execute, and the code.
func sandboxELF(arch string) ([]byte, error) {
	w, ok := waits[arch]
	if !ok {
		return nil, mesh.Errorf(mesh.Unsupported, "containers with a network are not supported on %s", arch)
	}
	const base, header, segment = 0x400000, 64, 56
	le := binary.LittleEndian
	size := uint64(header + segment + len(w.code))
	b := append([]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, make([]byte, 9)...) // 64 bits, little-endian
	b = le.AppendUint16(b, 2)                                             // an executable
	b = le.AppendUint16(b, w.machine)
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, base+header+segment) // entry
	b = le.AppendUint64(b, header)              // segments
	b = le.AppendUint64(b, 0)                   // no sections
	b = le.AppendUint32(b, 0)
	for _, v := range []uint16{header, segment, 1, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	b = le.AppendUint32(b, 1) // loaded
	b = le.AppendUint32(b, 5) // read and execute
	for _, v := range []uint64{0, base, base, size, size, 0x10000} {
		b = le.AppendUint64(b, v)
	}
	return append(b, w.code...), nil
}

// sandboxArchive is the image as the engine loads it, and the digest of its only
// layer, by which it is known again.
func sandboxArchive(arch string) (archive []byte, layer string, err error) {
	program, err := sandboxELF(arch)
	if err != nil {
		return nil, "", err
	}
	pack := func(name string, mode int64, b []byte, out *tar.Writer) error {
		if err := out.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(b)), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}); err != nil {
			return err
		}
		_, err := out.Write(b)
		return err
	}
	var files bytes.Buffer
	fs := tar.NewWriter(&files)
	if err := pack(sandboxProgram[1:], 0o555, program, fs); err != nil {
		return nil, "", err
	}
	if err := fs.Close(); err != nil {
		return nil, "", err
	}
	sum := sha256.Sum256(files.Bytes())
	layer = "sha256:" + hex.EncodeToString(sum[:])
	config, err := json.Marshal(map[string]any{
		"architecture": arch, "os": "linux", "created": time.Unix(0, 0).UTC(),
		"config": map[string]any{"Entrypoint": []string{sandboxProgram}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{layer}},
	})
	if err != nil {
		return nil, "", err
	}
	manifest, err := json.Marshal([]any{map[string]any{"Config": "config.json", "RepoTags": []string{sandboxRef}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return nil, "", err
	}
	var all bytes.Buffer
	out := tar.NewWriter(&all)
	for _, f := range []struct {
		name string
		data []byte
	}{{"manifest.json", manifest}, {"config.json", config}, {"layer.tar", files.Bytes()}} {
		if err := pack(f.name, 0o444, f.data, out); err != nil {
			return nil, "", err
		}
	}
	return all.Bytes(), layer, out.Close()
}

// sandboxImage is the image of sandboxes, loaded into the engine if it is not there.
func (d *Driver) sandboxImage(ctx context.Context, e engine) (image, error) {
	archive, layer, err := sandboxArchive(e.arch)
	if err != nil {
		return image{}, err
	}
	for _, load := range []bool{false, true} {
		if load {
			if err := d.loadImage(ctx, archive); err != nil {
				return image{}, err
			}
		}
		got, err := d.inspectImage(ctx, sandboxRef)
		if err != nil && !errdefs.IsNotFound(err) {
			return image{}, d.fail(err, "look for the image of sandboxes")
		}
		if err == nil && isSandboxImage(got, layer) {
			return usable(got, e, sandboxRef)
		}
	}
	return image{}, mesh.Errorf(mesh.Unsupported, "the container engine loads another image than %s", sandboxRef).
		WithHint("remove that image, and see who else makes one of that name")
}

// isSandboxImage reports whether an image is ours by its content: the name is
// anybody's.
func isSandboxImage(got api.InspectResponse, layer string) bool {
	c := got.Config
	return c != nil && slices.Equal(got.RootFS.Layers, []string{layer}) && slices.Equal(c.Entrypoint, []string{sandboxProgram}) &&
		len(c.Cmd) == 0 && len(c.Volumes) == 0 && len(c.OnBuild) == 0
}

func (d *Driver) loadImage(ctx context.Context, archive []byte) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := d.cli.ImageLoad(ctx, bytes.NewReader(archive), client.ImageLoadWithQuiet(true))
	if err != nil {
		return d.fail(err, "load the image of sandboxes")
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(answer.Body, maxAnswer)); err != nil {
		return d.fail(err, "load the image of sandboxes")
	}
	return nil
}
