package node

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/member"
	"peercompute/pkg/mesh"
	"peercompute/pkg/oci"
	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

var sender = mesh.PeerID("\x00\x24\x08\x01\x12\x20" + strings.Repeat("s", 32))

// aLayer is an archive of one file.
func aLayer(t testing.TB, name string, size int) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(size)}), func() error { _, err := w.Write(make([]byte, size)); return err }(), w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// anImage is a description and the bytes of its parts, by digest.
func anImage(t testing.TB, layers ...[]byte) (pushedImage, map[string][]byte) {
	t.Helper()
	img := oci.Image{OS: "linux", Arch: "amd64"}
	parts, diffs := map[string][]byte{}, []string{}
	for _, l := range layers {
		d := oci.DigestOf(l)
		parts[d] = l
		diffs = append(diffs, d)
		img.Layers = append(img.Layers, oci.Layer{Digest: d, Size: int64(len(l))})
	}
	config, err := json.Marshal(map[string]any{"os": "linux", "architecture": "amd64", "rootfs": map[string]any{"type": "layers", "diff_ids": diffs}})
	if err != nil {
		t.Fatal(err)
	}
	img.ID, img.ConfigSize = oci.DigestOf(config), int64(len(config))
	parts[img.ID] = config
	return pushedImage{Owner: sender, Peer: sender, Image: img}, parts
}

// sent is the one stream of parts that a peer sends.
func sent(t testing.TB, parts ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	for _, p := range parts {
		if _, err := z.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func spooled(t testing.TB, n *Node) (whole, partly int) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(n.imagesDir(), "in", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if strings.HasSuffix(f, partial) {
			partly++
		} else {
			whole++
		}
	}
	return whole, partly
}

func homeOnly(t testing.TB) *Node {
	t.Helper()
	return &Node{m: &member.Member{Config: member.Config{Home: t.TempDir()}}}
}

func missing(digests ...string) (out []wire.MissingPart) {
	for _, d := range digests {
		out = append(out, wire.MissingPart{Digest: d})
	}
	return out
}

func TestPartsThatAreTaken(t *testing.T) {
	n := homeOnly(t)
	l := aLayer(t, "file", 5000)
	p, parts := anImage(t, l)
	if err := n.takeParts(bytes.NewReader(sent(t, parts[p.Image.ID], l)), p, missing(p.Image.ID, p.Image.Layers[0].Digest)); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(n.spoolDir(sender), oci.FileName(p.Image.Layers[0].Digest)))
	if err != nil || !bytes.Equal(got, l) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if whole, partly := spooled(t, n); whole != 2 || partly != 0 {
		t.Errorf("%d parts, %d of them not whole", whole, partly)
	}
}

// A part that breaks off is kept as far as it came, and continued.
func TestPartsGoOnAfterACut(t *testing.T) {
	n := homeOnly(t)
	l := aLayer(t, "file", 50_000)
	p, parts := anImage(t, l)
	id, layer := p.Image.ID, p.Image.Layers[0].Digest
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	for _, part := range [][]byte{parts[id], l[:20_000]} {
		if _, err := z.Write(part); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := n.takeParts(bytes.NewReader(b.Bytes()), p, missing(id, layer)); mesh.KindOf(err) != mesh.Unavailable {
		t.Fatalf("cut: %v", err)
	}
	st, err := os.Stat(filepath.Join(n.spoolDir(sender), oci.FileName(layer)+partial))
	if err != nil || st.Size() != 20_000 {
		t.Fatalf("%v %v", st, err)
	}
	rest := []wire.MissingPart{{Digest: layer, Offset: st.Size()}}
	if err := n.takeParts(bytes.NewReader(sent(t, l[20_000:])), p, rest); err != nil {
		t.Fatal(err)
	}
	if whole, partly := spooled(t, n); whole != 2 || partly != 0 {
		t.Errorf("%d parts, %d of them not whole", whole, partly)
	}
}

// What a hostile sender makes of the parts is refused, and nothing of it stays.
func TestHostileParts(t *testing.T) {
	up := aLayer(t, "../../etc/cron.d/x", 10)
	good := aLayer(t, "file", 3000)
	other := bytes.Clone(good)
	other[600] ^= 1
	p, parts := anImage(t, good)
	id, layer := p.Image.ID, p.Image.Layers[0].Digest
	config := parts[id]
	hostile, hostileParts := anImage(t, up)
	arm := p
	arm.Image.Arch = "arm64"
	for name, c := range map[string]struct {
		p       pushedImage
		missing []wire.MissingPart
		bytes   []byte
		rule    string
	}{
		"a layer with another byte":         {p, missing(id, layer), sent(t, config, other), "image.digest"},
		"another configuration":             {p, missing(id, layer), sent(t, bytes.Replace(config, []byte("amd64"), []byte("arm64"), 1), good), "image.config"},
		"a configuration of another system": {arm, missing(id, layer), sent(t, config, good), "image.config"},
		"a layer that leads outside":        {hostile, missing(hostile.Image.ID, hostile.Image.Layers[0].Digest), sent(t, hostileParts[hostile.Image.ID], up), "image.layer"},
		"more than was asked for":           {p, missing(id, layer), sent(t, config, good, []byte("x")), "image.size"},
		"a bomb":                            {p, missing(id, layer), sent(t, config, good, make([]byte, 8<<20)), "image.size"},
	} {
		n := homeOnly(t)
		err := n.takeParts(bytes.NewReader(c.bytes), c.p, c.missing)
		if mesh.KindOf(err) != mesh.Forged || mesh.AsError(err).Rule != c.rule {
			t.Errorf("%s: %v", name, err)
		}
		whole, partly := spooled(t, n)
		if whole > 2 || partly != 0 || c.rule != "image.size" && whole > 1 {
			t.Errorf("%s: %d parts were kept, %d not whole", name, whole, partly)
		}
	}
	for name, b := range map[string][]byte{"nothing": nil, "no gzip": []byte("GET / HTTP/1.1\r\n\r\n"), "less": sent(t, config[:10])} {
		if err := homeOnly(t).takeParts(bytes.NewReader(b), p, missing(id, layer)); mesh.KindOf(err) != mesh.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// And what a hostile receiver asks for is nothing but parts of the image.
func TestPartsThatAreAskedFor(t *testing.T) {
	p, _ := anImage(t, aLayer(t, "a", 100), aLayer(t, "b", 200))
	img := p.Image
	got, total, err := partsToSend(img, []wire.MissingPart{{Digest: img.ID}, {Digest: img.Layers[1].Digest, Offset: 24}})
	if err != nil || len(got) != 2 || total != img.ConfigSize+img.Layers[1].Size-24 {
		t.Fatalf("%v, %d bytes, %v", got, total, err)
	}
	for name, m := range map[string][]wire.MissingPart{
		"another file":     missing("sha256:" + strings.Repeat("a", 64)),
		"a path":           missing("../../key"),
		"one twice":        missing(img.ID, img.ID),
		"before it":        {{Digest: img.ID, Offset: -1}},
		"beyond its end":   {{Digest: img.ID, Offset: img.ConfigSize + 1}},
		"one with no name": missing(""),
	} {
		if _, _, err := partsToSend(img, m); mesh.KindOf(err) != mesh.Forged {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An attempt takes the place of an earlier one at the same image, and of no other.
func TestOneArrivalAtATime(t *testing.T) {
	var a arrivals
	p, _ := anImage(t, aLayer(t, "a", 100))
	q, _ := anImage(t, aLayer(t, "b", 100))
	first, err := a.take(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.take(t.Context(), q); mesh.KindOf(err) != mesh.Overloaded {
		t.Errorf("a second image: %v", err)
	}
	go func() { <-first.ctx.Done(); first.release(); first.release() }()
	second, err := a.take(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	second.release()
	other, err := a.take(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	other.release()
}

func FuzzParts(f *testing.F) {
	l := aLayer(f, "file", 300)
	p, parts := anImage(f, l)
	f.Add(sent(f, parts[p.Image.ID], l))
	f.Add(sent(f, l, parts[p.Image.ID]))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := homeOnly(t)
		err := n.takeParts(bytes.NewReader(b), p, missing(p.Image.ID, p.Image.Layers[0].Digest))
		dir := n.spoolDir(sender)
		for d, want := range parts {
			got, rerr := os.ReadFile(filepath.Join(dir, oci.FileName(d)))
			if rerr == nil && !bytes.Equal(got, want) || rerr != nil && err == nil {
				t.Errorf("part %s: %d bytes, %v (%v)", d, len(got), rerr, err)
			}
		}
	})
}

// Images follow their owner to another key, and keep their names.
func TestImagesFollowTheirOwner(t *testing.T) {
	st, err := store.Open(filepath.Join(t.TempDir(), store.FileName))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	p, _ := anImage(t, aLayer(t, "a", 100))
	q, _ := anImage(t, aLayer(t, "b", 100), aLayer(t, "a", 100))
	next := mesh.PeerID("\x00\x24\x08\x01\x12\x20" + strings.Repeat("n", 32))
	err = st.Update(t.Context(), func(tx *store.Tx) error {
		return errors.Join(putImage(tx, p), putImage(tx, q), rekeyImages(tx, sender, next))
	})
	if err != nil {
		t.Fatal(err)
	}
	err = st.View(func(tx *store.Tx) error {
		for _, i := range []pushedImage{p, q} {
			got, ok, err := getImage(tx, sender, i.Image.ID)
			if err != nil || !ok || got.Peer != next || got.ref() != i.ref() {
				t.Errorf("%+v %t %v", got, ok, err)
			}
		}
		// A layer that both have counts once; with another size it is another.
		parts, held, all, count, err := imageDisk(tx, sender)
		if want := p.Image.ConfigSize + q.Image.Size(); held != want || all != want || count != 2 || len(parts) != 4 {
			t.Errorf("%d of %d bytes in %d parts of %d images, want %d", held, all, len(parts), count, want)
		}
		if larger := (oci.Layer{Digest: p.Image.Layers[0].Digest, Size: 1 << 40}); parts[larger] {
			t.Error("a part of another size is taken for one that is held")
		}
		if _, held, _, count, _ := imageDisk(tx, next); held != 0 || count != 0 {
			t.Errorf("another holds %d bytes of %d images", held, count)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestWhatPeersFoundIsForgotten(t *testing.T) {
	var p pushes
	now := time.Now()
	f := foundImage{sender, "nginx", ""}
	if p.known(f, now) {
		t.Error("known before it was asked")
	}
	p.learn(f, now)
	if !p.known(f, now) || p.known(f, now.Add(foundFor)) || p.known(foundImage{sender, "nginx", "sha256:x"}, now) {
		t.Error("known for too short, too long or too much")
	}
	for i := range 2 * maxFound {
		p.learn(foundImage{sender, strings.Repeat("x", i+1), ""}, now)
	}
	if len(p.found) > maxFound {
		t.Errorf("%d are remembered", len(p.found))
	}
}

// Whatever is announced, what passes is bounded.
func FuzzAnnouncedImage(f *testing.F) {
	p, _ := anImage(f, aLayer(f, "a", 100))
	ask := wire.PushImage{ID: p.Image.ID, ConfigSize: p.Image.ConfigSize, OS: "linux", Arch: "amd64"}
	for range 2 {
		b, err := wire.Marshal(ask)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		ask.Layers = []wire.ImagePart{{Digest: p.Image.Layers[0].Digest, Size: 1 << 62}, {Digest: p.Image.ID, Size: -1}}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		img, err := announced(b)
		if err != nil {
			return
		}
		if size := img.Image.Size(); size <= 0 || size > maxImage || len(img.Image.Layers) > oci.MaxLayers || len(img.Name) > 200 {
			t.Errorf("an image of %d bytes passes: %+v", size, img)
		}
		for _, part := range img.Image.Parts() {
			if !mesh.ValidDigest(part.Digest) || part.Size <= 0 {
				t.Errorf("a part passes: %+v", part)
			}
		}
		if _, _, err := img.Image.Manifest(); err != nil {
			t.Errorf("it has no manifest: %v", err)
		}
	})
}

// The manifest of a pushed image is known by the image's name, while there is one.
func TestImageManifest(t *testing.T) {
	st, err := store.Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	p, _ := anImage(t, aLayer(t, "x", 10))
	_, want, err := p.Image.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if got := ImageManifest(st, p.ref()); got != "" {
		t.Errorf("before it is here: %q", got)
	}
	if err := st.Update(t.Context(), func(tx *store.Tx) error { return putImage(tx, p) }); err != nil {
		t.Fatal(err)
	}
	if got := ImageManifest(st, p.ref()); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := ImageManifest(st, mesh.PushedRef(ann, p.Image.ID)); got != "" {
		t.Errorf("another's: %q", got)
	}
}
