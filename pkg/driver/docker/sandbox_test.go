package docker

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/json"
	"io"
	"testing"

	api "github.com/docker/docker/api/types/image"

	"peercompute/pkg/mesh"
)

// The program of a sandbox is one that a kernel loads: one segment, not writable,
// with the entry in it.
func TestSandboxProgram(t *testing.T) {
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		b, err := sandboxELF(arch)
		if err != nil {
			t.Fatal(err)
		}
		f, err := elf.NewFile(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("%s: %v", arch, err)
		}
		p := f.Progs[0]
		if f.Machine != machine || f.Type != elf.ET_EXEC || len(f.Progs) != 1 || p.Type != elf.PT_LOAD || p.Flags != elf.PF_R|elf.PF_X ||
			p.Filesz != uint64(len(b)) || f.Entry != p.Vaddr+120 {
			t.Errorf("%s: %+v, entry %x", arch, p.ProgHeader, f.Entry)
		}
	}
	if _, err := sandboxELF("s390x"); mesh.KindOf(errOr(err)) != mesh.Unsupported {
		t.Errorf("an architecture without a program: %v", err)
	}
}

// The archive is the same each time, or engines would collect images.
func TestSandboxArchive(t *testing.T) {
	one, layer, err := sandboxArchive("amd64")
	if err != nil {
		t.Fatal(err)
	}
	two, again, err := sandboxArchive("amd64")
	if err != nil || !bytes.Equal(one, two) || layer != again {
		t.Errorf("two archives differ, %v", err)
	}
	r := tar.NewReader(bytes.NewReader(one))
	for _, want := range []string{"manifest.json", "config.json", "layer.tar"} {
		h, err := r.Next()
		if err != nil || h.Name != want {
			t.Fatalf("got %v, %v, want %s", h, err, want)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("more in the archive: %v", err)
	}
}

// Anybody can give an image the name of ours.
func TestSandboxImageIsKnownByContent(t *testing.T) {
	const layer = "sha256:aa"
	ours := func() (i api.InspectResponse) {
		if err := json.Unmarshal([]byte(`{"RootFS": {"Layers": ["`+layer+`"]}, "Config": {"Entrypoint": ["/sandbox"]}}`), &i); err != nil {
			t.Fatal(err)
		}
		return i
	}
	if !isSandboxImage(ours(), layer) {
		t.Error("ours is not known again")
	}
	for name, change := range map[string]func(*api.InspectResponse){
		"another layer":  func(i *api.InspectResponse) { i.RootFS.Layers[0] = "sha256:bb" },
		"one more layer": func(i *api.InspectResponse) { i.RootFS.Layers = append(i.RootFS.Layers, "sha256:bb") },
		"entry point":    func(i *api.InspectResponse) { i.Config.Entrypoint = []string{"/x"} },
		"arguments":      func(i *api.InspectResponse) { i.Config.Cmd = []string{"x"} },
		"volumes":        func(i *api.InspectResponse) { i.Config.Volumes = map[string]struct{}{"/x": {}} },
		"nothing":        func(i *api.InspectResponse) { i.Config = nil },
	} {
		i := ours()
		change(&i)
		if isSandboxImage(i, layer) {
			t.Errorf("%s: taken for ours", name)
		}
	}
}
