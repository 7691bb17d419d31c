package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"peercompute/pkg/mesh"
)

const limit = 1 << 30

func config(t testing.TB, arch string, layers ...string) []byte {
	t.Helper()
	b, err := json.Marshal(map[string]any{
		"os": "linux", "architecture": arch, "config": map[string]any{"Entrypoint": []string{"/program"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": layers},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// layer is an archive of entries; one without a type is a file that holds its name.
func layer(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		if h.Typeflag == 0 {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(h.Name))
		}
		h.Mode = 0o755
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte(h.Name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func named(b []byte) Layer { return Layer{DigestOf(b), int64(len(b))} }

func file(name string) tar.Header { return tar.Header{Name: name} }

func link(kind byte, name, to string) tar.Header {
	return tar.Header{Name: name, Linkname: to, Typeflag: kind}
}

func TestCheck(t *testing.T) {
	a, b := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64)
	good := Image{ID: a, ConfigSize: 100, OS: "linux", Arch: "amd64", Layers: []Layer{{b, 10}, {b, 10}}}
	if err := good.Check(limit); err != nil || good.Size() != 110 || len(good.Parts()) != 2 {
		t.Fatalf("%v, %d bytes in %d parts", err, good.Size(), len(good.Parts()))
	}
	for name, spoil := range map[string]func(*Image){
		"no name":                           func(i *Image) { i.ID = "nginx" },
		"no configuration":                  func(i *Image) { i.ConfigSize = 0 },
		"a negative one":                    func(i *Image) { i.ConfigSize = -1 },
		"a huge one":                        func(i *Image) { i.ConfigSize = MaxConfig + 1 },
		"too many layers":                   func(i *Image) { i.Layers = slices.Repeat(i.Layers, MaxLayers) },
		"a path":                            func(i *Image) { i.Layers[0].Digest = "sha256:../../../etc/passwd" },
		"another hash":                      func(i *Image) { i.Layers[0].Digest = "sha512:" + strings.Repeat("a", 128) },
		"an empty layer":                    func(i *Image) { i.Layers[1].Size = 0 },
		"a negative layer":                  func(i *Image) { i.Layers[1].Size = -10 },
		"two sizes":                         func(i *Image) { i.Layers[1].Size = 11 },
		"too large":                         func(i *Image) { i.Layers = []Layer{{b, limit}} },
		"a sum that overflows":              func(i *Image) { i.Layers = []Layer{{b, 1<<63 - 1}, {"sha256:" + strings.Repeat("c", 64), 1<<63 - 1}} },
		"a layer that is the configuration": func(i *Image) { i.Layers[0] = Layer{a, 99}; i.Layers[1] = Layer{a, 99} },
		"no platform":                       func(i *Image) { i.Arch = "" },
		"an odd platform":                   func(i *Image) { i.OS = "linux\n" },
	} {
		i := good
		i.Layers = slices.Clone(good.Layers)
		spoil(&i)
		if err := i.Check(limit); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestCheckConfig(t *testing.T) {
	l := named(layer(t, file("a")))
	c := config(t, "amd64", l.Digest)
	img := Image{ID: DigestOf(c), ConfigSize: int64(len(c)), OS: "linux", Arch: "amd64", Layers: []Layer{l}}
	if err := CheckConfig(c, img); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Image){
		"another architecture":  func(i *Image) { i.Arch = "arm64" },
		"another system":        func(i *Image) { i.OS = "windows" },
		"another configuration": func(i *Image) { i.ID = l.Digest },
		"a layer more":          func(i *Image) { i.Layers = append(i.Layers, l) },
		"a layer less":          func(i *Image) { i.Layers = nil },
		"another layer":         func(i *Image) { i.Layers[0].Digest = i.ID },
		"another size":          func(i *Image) { i.ConfigSize++ },
	} {
		i := img
		i.Layers = slices.Clone(img.Layers)
		spoil(&i)
		if err := CheckConfig(c, i); mesh.KindOf(err) != mesh.Forged {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, bad := range []string{
		"", "x", "[]", `{"rootfs":{"type":"tar"}}`, `{"rootfs":{"type":"layers","diff_ids":["sha512:` + strings.Repeat("a", 128) + `"]}}`,
		`{"rootfs":{"type":"layers","diff_ids":["../x"]}}`, string(config(t, "amd64", slices.Repeat([]string{l.Digest}, MaxLayers+1)...)),
	} {
		if got, err := Describe([]byte(bad)); err == nil {
			t.Errorf("%.60s is described as %+v", bad, got)
		}
	}
}

// The manifest is ours: media types are not the sender's to choose.
func TestManifest(t *testing.T) {
	a, b := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64)
	img := Image{ID: a, ConfigSize: 100, OS: "linux", Arch: "amd64", Layers: []Layer{{b, 10}}}
	got, digest, err := img.Manifest()
	if err != nil || digest != DigestOf(got) {
		t.Fatal(err)
	}
	want := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",` +
		`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":100,"digest":"` + a + `"},` +
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","size":10,"digest":"` + b + `"}]}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	img.Layers[0].Digest = "sha256:x"
	if _, _, err := img.Manifest(); err == nil {
		t.Error("a manifest names what is no digest")
	}
}

func TestCheckLayer(t *testing.T) {
	for name, c := range map[string]struct {
		entries []tar.Header
		want    string // part of the refusal; empty = taken
	}{
		"an empty one":          {nil, ""},
		"files":                 {[]tar.Header{{Name: "etc/", Typeflag: tar.TypeDir}, file("etc/passwd"), file("/abs"), file("./rel")}, ""},
		"links":                 {[]tar.Header{link(tar.TypeSymlink, "a", "../../etc/shadow"), file("b"), link(tar.TypeLink, "c", "b")}, ""},
		"whiteouts":             {[]tar.Header{file("a/.wh.b"), file("a/.wh..wh..opq"), {Name: ".wh..wh.plnk/", Typeflag: tar.TypeDir}}, ""},
		"up":                    {[]tar.Header{file("../x")}, "outside"},
		"up in between":         {[]tar.Header{file("a/../../x")}, "outside"},
		"up behind a slash":     {[]tar.Header{file("/../x")}, "outside"},
		"a hard link up":        {[]tar.Header{link(tar.TypeLink, "a", "../../etc/shadow")}, "link"},
		"a whiteout up":         {[]tar.Header{file("a/.wh...")}, "whiteout"},
		"a whiteout of itself":  {[]tar.Header{file("a/.wh..")}, "whiteout"},
		"a whiteout of nothing": {[]tar.Header{file(".wh.")}, "whiteout"},
		"a nested whiteout":     {[]tar.Header{file(".wh..wh.x")}, "whiteout"},
		"an unknown kind":       {[]tar.Header{{Name: "a", Typeflag: 'Z'}}, "unknown kind"},
	} {
		b := layer(t, c.entries...)
		err := CheckLayer(bytes.NewReader(b), named(b))
		if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b := layer(t, file("a"))
	want := named(b)
	for name, got := range map[string][]byte{
		"a byte more": append(slices.Clone(b), 0), "a byte less": b[:len(b)-1], "another byte": append([]byte("b"), b[1:]...), "nothing": nil,
	} {
		if err := CheckLayer(bytes.NewReader(got), want); mesh.AsError(err).Rule != "image.digest" {
			t.Errorf("%s: %v", name, err)
		}
	}
	junk := bytes.Repeat([]byte("junk"), 1024)
	if err := CheckLayer(bytes.NewReader(junk), named(junk)); err == nil || !strings.Contains(err.Error(), "not an archive") {
		t.Errorf("junk: %v", err)
	}
}

// What lies in an archive is found by its digest; its name decides nothing.
func TestUnpack(t *testing.T) {
	names := []string{"../../etc/cron.d/x", "/etc/passwd", "manifest.json", "layer.tar"}
	var entries []tar.Header
	wanted := map[string]bool{}
	for _, n := range names {
		entries = append(entries, file(n))
		wanted[DigestOf([]byte(n))] = true
	}
	entries = append(entries, file("unwanted"), link(tar.TypeSymlink, "layer2.tar", "/etc/passwd"), link(tar.TypeLink, "layer3.tar", "../x"))
	dir := filepath.Join(t.TempDir(), "in")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	b := layer(t, entries...)
	found, err := Unpack(bytes.NewReader(b), dir, Wanted{Parts: wanted}, limit)
	if err != nil || len(found) != len(names) {
		t.Fatalf("found %v, %v", found, err)
	}
	there, err := os.ReadDir(dir)
	if err != nil || len(there) != len(names) {
		t.Errorf("there are %v, %v", there, err)
	}
	for _, n := range names {
		if got, err := os.ReadFile(filepath.Join(dir, FileName(DigestOf([]byte(n))))); err != nil || string(got) != n {
			t.Errorf("%s: %q %v", n, got, err)
		}
	}
	if beside, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(beside) != 1 {
		t.Errorf("beside it there are %v, %v", beside, err)
	}
	if _, err := Unpack(bytes.NewReader(b), dir, Wanted{Parts: wanted}, 600); mesh.KindOf(err) != mesh.TooLarge {
		t.Errorf("over the limit: %v", err)
	}
	if _, err := Unpack(bytes.NewReader(b[:520]), dir, Wanted{Parts: wanted}, limit); err == nil {
		t.Error("an archive that breaks off was taken")
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// What engines that keep images with containerd save: layers are compressed, and
// nothing says which file is the configuration.
func TestUnpackCompressed(t *testing.T) {
	plain := layer(t, file("bin/x"))
	squeezed := func(b []byte) []byte {
		var out bytes.Buffer
		w := gzip.NewWriter(&out)
		_, err := w.Write(b)
		if err := errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	ours, other := config(t, "amd64", DigestOf(plain)), config(t, "arm64", DigestOf(plain))
	var saved bytes.Buffer
	w := tar.NewWriter(&saved)
	for i, b := range [][]byte{squeezed(plain), other, []byte("{}"), ours} {
		err := w.WriteHeader(&tar.Header{Name: fmt.Sprint("blobs/sha256/", i), Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(b))})
		if _, werr := w.Write(b); errors.Join(err, werr) != nil {
			t.Fatal(err, werr)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	wanted := Wanted{
		Parts: map[string]bool{DigestOf(plain): true},
		Config: func(i Image) bool {
			return i.Arch == "amd64" && len(i.Layers) == 1 && i.Layers[0].Digest == DigestOf(plain)
		},
	}
	dir := t.TempDir()
	found, err := Unpack(bytes.NewReader(saved.Bytes()), dir, wanted, limit)
	if err != nil || len(found) != 2 || found[DigestOf(plain)] != int64(len(plain)) || found[DigestOf(ours)] != int64(len(ours)) {
		t.Fatalf("found %v, %v", found, err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, FileName(DigestOf(plain)))); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("the layer is %d bytes, %v", len(got), err)
	}

	// A few bytes may hold very many: what is written is bounded too.
	bomb := squeezed(make([]byte, 8<<20))
	saved.Reset()
	w = tar.NewWriter(&saved)
	err = w.WriteHeader(&tar.Header{Name: "x", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(bomb))})
	if _, werr := w.Write(bomb); errors.Join(err, werr, w.Close()) != nil {
		t.Fatal(err, werr)
	}
	if _, err := Unpack(&saved, dir, wanted, 1<<20); mesh.KindOf(err) != mesh.TooLarge {
		t.Errorf("8 MiB in %d bytes, of which 1 MiB is taken: %v", len(bomb), err)
	}
	if _, size, err := keep(bytes.NewReader(bomb), dir, wanted, 1<<20); size != 1<<20+1 || err != nil {
		t.Errorf("%d bytes were written, %v; want one more than may be", size, err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func FuzzDescribe(f *testing.F) {
	f.Add(config(f, "amd64", "sha256:"+strings.Repeat("a", 64)))
	f.Add([]byte(`{"rootfs":{"type":"layers","diff_ids":["sha256:"]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		img, err := Describe(b)
		if err != nil {
			return
		}
		if err := CheckConfig(b, img); err != nil {
			t.Errorf("what was described is refused: %v", err)
		}
		if len(img.Layers) > MaxLayers || img.ID != DigestOf(b) {
			t.Errorf("described as %+v", img)
		}
		for i := range img.Layers {
			img.Layers[i].Size = 1
		}
		if _, _, err := img.Manifest(); err != nil {
			t.Errorf("it has no manifest: %v", err)
		}
	})
}

func FuzzCheckLayer(f *testing.F) {
	f.Add(layer(f, file("a"), link(tar.TypeLink, "b", "a")))
	f.Add(layer(f, file("../a")))
	f.Add(layer(f, file(".wh..wh..opq"), file(".wh...")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if CheckLayer(bytes.NewReader(b), named(b)) != nil {
			return
		}
		for in := tar.NewReader(bytes.NewReader(b)); ; {
			h, err := in.Next()
			if err != nil {
				return
			}
			if p := filepath.Join("/root/layer", h.Name); !strings.HasPrefix(p+"/", "/root/layer/") {
				t.Errorf("%q leads to %s", h.Name, p)
			}
		}
	})
}

func FuzzUnpack(f *testing.F) {
	f.Add(layer(f, file("../../x"), file("y")))
	f.Add(layer(f, link(tar.TypeSymlink, "x", "/etc"), file("x/y")))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		found, err := Unpack(bytes.NewReader(b), dir, Wanted{Parts: map[string]bool{DigestOf([]byte("y")): true}, Config: func(Image) bool { return true }}, 1<<20)
		there, rerr := os.ReadDir(dir)
		if rerr != nil || len(there) > 1 || err == nil && len(there) != len(found) {
			t.Errorf("found %v, there are %v (%v, %v)", found, there, err, rerr)
		}
	})
}
