package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/driver/docker/dockertest"
	"peercompute/pkg/frame"
	"peercompute/pkg/mesh"
	"peercompute/pkg/oci"
	"peercompute/pkg/testkit"
	"peercompute/pkg/wire"
	"peercompute/test/internal/testmesh"
)

// hostileImage is an image of one layer as a peer may announce it, with its parts.
func hostileImage(t *testing.T, layer []byte) (ask wire.PushImage, config []byte) {
	t.Helper()
	diff := oci.DigestOf(layer)
	config, err := json.Marshal(map[string]any{
		"os": "linux", "architecture": runtime.GOARCH, "rootfs": map[string]any{"type": "layers", "diff_ids": []string{diff}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return wire.PushImage{
		ID: oci.DigestOf(config), ConfigSize: int64(len(config)), OS: "linux", Arch: runtime.GOARCH,
		Layers: []wire.ImagePart{{Digest: diff, Size: int64(len(layer))}}, Name: "nginx:1.29",
	}, config
}

// A trusted peer that lies about an image is refused before a byte is taken, or at
// the part that is not what it should be; and nothing of it can be run.
func TestHostilePush(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "docker")
	testkit.Need(t, "root")
	m := testmesh.New(t)
	bob := m.Peer("bob")
	s := newSender(t, bob)
	bob.Must("peers", "allow", "actor", "--images", "pushed", "--disk", "64M")
	push := func(ask wire.PushImage, parts ...[]byte) error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var reply wire.PushImageReply
		st, err := s.Requests.Open(ctx, bob.ID(), wire.VerbPushImage, ask, &reply)
		if err != nil {
			return err
		}
		defer st.Reset()
		defer context.AfterFunc(ctx, st.Reset)()
		z := gzip.NewWriter(st)
		for _, p := range parts {
			if _, err := z.Write(p); err != nil {
				break // it says why
			}
		}
		_ = z.Close()
		typ, payload, err := frame.Read(st)
		if err != nil || typ != wire.FrameError {
			return err
		}
		var e wire.Error
		if err := wire.DecodeBody(payload, &e); err != nil {
			return err
		}
		return e.Err()
	}
	layer := dockertest.Layer(t, map[string][]byte{"file": noise(1000)})
	good, config := hostileImage(t, layer)
	// Announced once, but never sent: it is known, and does not let larger ones pass.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	announced, err := s.Requests.Open(ctx, bob.ID(), wire.VerbPushImage, good, nil)
	if err != nil {
		t.Fatal(err)
	}
	announced.Reset()
	for name, c := range map[string]struct {
		spoil func(*wire.PushImage)
		rule  string
	}{
		"another architecture": {func(a *wire.PushImage) { a.Arch = "s390x" }, "host.platform"},
		"another system":       {func(a *wire.PushImage) { a.OS = "windows" }, "host.platform"},
		"a path for a layer":   {func(a *wire.PushImage) { a.Layers[0].Digest = "sha256:../../../../etc/passwd" }, ""},
		"a tag for a name":     {func(a *wire.PushImage) { a.ID = "nginx:1.29" }, ""},
		"a thousand layers":    {func(a *wire.PushImage) { a.Layers = slices.Repeat(a.Layers, 1000) }, "host.image-layers"},
		"a huge layer":         {func(a *wire.PushImage) { a.Layers[0].Size = 1 << 50 }, "host.image-size"},
		"a negative layer":     {func(a *wire.PushImage) { a.Layers[0].Size = -1 }, ""},
		"a huge configuration": {func(a *wire.PushImage) { a.ConfigSize = 1 << 30 }, "host.image-size"},
		"more than its grant":  {func(a *wire.PushImage) { a.Layers[0].Size = 65 << 20 }, "grant.disk"},
	} {
		ask := good
		ask.Layers = slices.Clone(good.Layers)
		c.spoil(&ask)
		if err := push(ask, config, layer); err == nil || mesh.AsError(err).Rule != c.rule || mesh.KindOf(err) == mesh.Internal {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(bob.Home, "images", "in", "*", "*")); err != nil || len(left) != 0 {
		t.Errorf("bytes were taken: %v %v", left, err)
	}

	flip := func(b []byte) []byte { b = bytes.Clone(b); b[len(b)/4] ^= 1; return b }
	up := map[string][]byte{"../../../../etc/cron.d/x": []byte("* * * * * root true\n")}
	for name, c := range map[string]struct {
		files map[string][]byte
		parts func(config, layer []byte) [][]byte // what is sent for them
		rule  string
	}{
		"another byte":          {nil, func(c, l []byte) [][]byte { return [][]byte{c, flip(l)} }, "image.digest"},
		"another configuration": {nil, func(c, l []byte) [][]byte { return [][]byte{flip(c), l} }, ""},
		"a layer for the other": {nil, func(c, l []byte) [][]byte {
			return [][]byte{bytes.Replace(c, []byte("rootfs"), []byte("Rootfs"), 1), l}
		}, "image.config"},
		"a layer that leads out":    {up, func(c, l []byte) [][]byte { return [][]byte{c, l} }, "image.layer"},
		"a bomb behind what it had": {nil, func(c, l []byte) [][]byte { return [][]byte{c, l, make([]byte, 16<<20)} }, "image.size"},
	} {
		files := c.files
		if files == nil {
			files = map[string][]byte{"file": noise(1000)}
		}
		layer := dockertest.Layer(t, files)
		ask, config := hostileImage(t, layer)
		err := push(ask, c.parts(config, layer)...)
		if err == nil || c.rule != "" && (mesh.KindOf(err) != mesh.Forged || mesh.AsError(err).Rule != c.rule) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ref := mesh.PushedRef(s.Key.ID, good.ID)
	refused(t, bob.Ctl("deploy", ref, "--peer", "self", "--name", "x"), "[grant.images]")
	if list := parse[[]pushedLine](t, bob.Must("image", "ls", "-o", "json")); slices.ContainsFunc(list, func(l pushedLine) bool {
		return l.State != "arriving" || !strings.HasPrefix(l.Ref, "peercompute.invalid/")
	}) {
		t.Errorf("bob has %+v", list)
	}
	// It all goes with the peer.
	bob.Must("peers", "remove", "actor")
	within(t, 20*time.Second, "the peer's images to go", func() bool {
		left, err := filepath.Glob(filepath.Join(bob.Home, "images", "in", "*", "*"))
		return err == nil && len(left) == 0 && len(parse[[]pushedLine](t, bob.Must("image", "ls", "-o", "json"))) == 0
	})
}
