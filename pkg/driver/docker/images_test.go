package docker_test

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"peercompute/pkg/driver"
	"peercompute/pkg/driver/docker/dockertest"
	"peercompute/pkg/mesh"
	"peercompute/pkg/oci"
)

func noise(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// pushed is an image that was exported and is not on the engine any more, but for
// its lower layers, which are those of another.
func pushed(t *testing.T, d interface {
	driver.Images
},
) (img oci.Image, dir, base string) {
	t.Helper()
	low := dockertest.Layer(t, map[string][]byte{"low": noise(200 << 10)})
	mid := dockertest.Layer(t, map[string][]byte{"mid": noise(100 << 10)})
	top := dockertest.Layer(t, map[string][]byte{"top": noise(50 << 10)})
	base, _ = dockertest.Load(t, "/low", low, mid)
	ref, id := dockertest.Load(t, "/top", low, mid, top)
	dir = t.TempDir()
	img, err := d.Export(t.Context(), ref, dir)
	if err != nil {
		t.Fatal(err)
	}
	if img.ID != id || len(img.Layers) != 3 || img.Layers[2].Size != int64(len(top)) || img.OS != "linux" {
		t.Fatalf("it is described as %+v", img)
	}
	for _, p := range img.Parts() {
		f, err := os.ReadFile(filepath.Join(dir, oci.FileName(p.Digest)))
		if err != nil || oci.DigestOf(f) != p.Digest || int64(len(f)) != p.Size {
			t.Fatalf("part %v: %d bytes, %v", p, len(f), err)
		}
	}
	dockertest.Drop(t, ref)
	return img, dir, base
}

// What one engine saved becomes the same image on another that has all layers but
// one: of those it takes its own.
func TestImportTakesLayersThatAreHere(t *testing.T) {
	t.Parallel()
	needEngine(t)
	node := newNode(t)
	d := open(t, node)
	img, sent, base := pushed(t, d)
	ref := mesh.PushedRef(node, img.ID)
	id := img.ID // as the engine has it
	if dockertest.ByManifest(t) {
		_, manifest, err := img.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		manifests.Store(ref, manifest)
		id = manifest
	}
	dir := t.TempDir()
	for _, p := range []string{img.ID, img.Layers[2].Digest} {
		if err := os.Rename(filepath.Join(sent, oci.FileName(p)), filepath.Join(dir, oci.FileName(p))); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the second changes nothing
		if err := d.Import(t.Context(), driver.Import{Image: img, Ref: ref, Dir: dir}); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { dockertest.Drop(t, ref) })
	if ok, err := d.Has(t.Context(), ref, img.ID); err != nil || !ok {
		t.Fatalf("it is here: %t %v", ok, err)
	}
	held, err := d.Held(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(held, func(h driver.HeldImage) bool { return h.ID == id })
	if at < 0 || !slices.Equal(held[at].Names, []string{ref}) || len(held[at].Layers) != 3 {
		t.Fatalf("the engine has %+v of %d", held[max(at, 0)], len(held))
	}
	// It is nobody's by its ID alone, also for one who may run any image.
	for _, s := range []mesh.Spec{spec(id), {Name: "x", Runtime: mesh.Container, Image: id, Digest: id}} {
		if _, err := d.Prepare(t.Context(), workload(s), nil); mesh.KindOf(err) != mesh.NotFound {
			t.Errorf("by its ID: %v", err)
		}
	}
	s := spec(ref)
	s.Digest = img.ID
	if got, err := d.Prepare(t.Context(), workload(s), nil); err != nil || got != id {
		t.Errorf("by its name: %s %v", got, err)
	}
	for range 2 {
		if err := d.Forget(t.Context(), ref); err != nil {
			t.Fatal(err)
		}
	}
	if ok, err := d.Has(t.Context(), base, ""); err != nil || !ok {
		t.Errorf("the image whose layers it had is gone as well: %v", err)
	}
	// And it is not looked for in a registry.
	if _, err := d.Prepare(t.Context(), workload(s), nil); mesh.KindOf(err) != mesh.NotFound || !strings.Contains(mesh.AsError(err).Hint, "--push") {
		t.Errorf("once it is gone: %v", err)
	}
	if err := d.Forget(t.Context(), base); mesh.KindOf(err) != mesh.Invalid {
		t.Errorf("another's image can be taken away: %v", err)
	}
}

// The engine refuses what differs from its digest, even if it lies in the directory.
func TestImportRefusesOtherBytes(t *testing.T) {
	t.Parallel()
	needEngine(t)
	node := newNode(t)
	d := open(t, node)
	img, dir, _ := pushed(t, d)
	ref := mesh.PushedRef(node, img.ID)
	top := filepath.Join(dir, oci.FileName(img.Layers[2].Digest))
	b, err := os.ReadFile(top)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(top, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Import(t.Context(), driver.Import{Image: img, Ref: ref, Dir: dir}); err == nil {
		t.Error("a layer with other bytes was taken")
	}
	other := img
	other.Arch = "s390x"
	if err := d.Import(t.Context(), driver.Import{Image: other, Ref: ref, Dir: dir}); mesh.KindOf(err) != mesh.Unsupported {
		t.Errorf("for another architecture: %v", err)
	}
	for _, bad := range []string{"nginx:latest", mesh.PushedRef(node, img.Layers[0].Digest), "peercompute.invalid/x:1"} {
		if err := d.Import(t.Context(), driver.Import{Image: img, Ref: bad, Dir: dir}); err == nil {
			t.Errorf("it was imported as %s", bad)
		}
	}
	if ok, _ := d.Has(t.Context(), ref, ""); ok {
		t.Error("it is here")
	}
}
