package docker_test

import (
	"crypto/rand"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"

	"peercompute/pkg/driver/docker"
	"peercompute/pkg/driver/docker/dockertest"
	"peercompute/pkg/mesh"
)

func TestPullsOnceForMany(t *testing.T) {
	needEngine(t)
	d := open(t, newNode(t))
	single := dockertest.NewRegistry(t, random(1<<20))
	if _, err := d.Prepare(t.Context(), workload(spec(single.Ref)), nil); err != nil {
		t.Fatal(err)
	}
	r := dockertest.NewRegistry(t, random(1<<20))
	want := r.ID
	if dockertest.ByManifest(t) {
		want = r.Manifest
	}
	var mu sync.Mutex
	var seen []mesh.Progress
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			id, err := d.Prepare(t.Context(), workload(spec(r.Ref)), func(p mesh.Progress) {
				mu.Lock()
				defer mu.Unlock()
				seen = append(seen, p)
			})
			if err != nil || id != want {
				t.Errorf("got %s, %v, want %s", id, err, want)
			}
		})
	}
	all.Wait()
	if n := r.Layers.Load(); n != 1 {
		t.Errorf("the layer was fetched %d times", n)
	}
	if got, once := r.Asked.Load(), single.Asked.Load(); got != once {
		t.Errorf("the manifest was asked for %d times, for one pull %d times", got, once)
	}
	if len(seen) == 0 || seen[0].What != "pulling "+r.Ref {
		t.Errorf("progress: got %+v", seen)
	}
	if id, err := d.Prepare(t.Context(), workload(spec(r.Ref)), nil); err != nil || id != want || r.Layers.Load() != 1 {
		t.Errorf("what is here was pulled again: %s, %v", id, err)
	}
}

func TestPins(t *testing.T) {
	needEngine(t)
	d := open(t, newNode(t))
	r := dockertest.NewRegistry(t, random(1<<10))
	other := "sha256:" + strings.Repeat("1", 64)
	want, byManifest := r.ID, dockertest.ByManifest(t)
	if byManifest {
		want = r.Manifest
	}
	for _, c := range []struct {
		name, digest string
		here         bool // the image was pulled before
		want         mesh.Kind
	}{
		{"manifest, to be pulled", r.Manifest, false, 0},
		{"image ID, to be pulled", r.ID, false, 0},
		{"manifest, here", r.Manifest, true, 0},
		{"image ID, here", r.ID, true, 0},
		{"other, to be pulled", other, false, mesh.Denied},
		{"other, here", other, true, mesh.Denied},
	} {
		if byManifest && c.digest == r.ID {
			continue // which such an engine has no name for
		}
		r.Forget(t)
		if c.here {
			if _, err := d.Prepare(t.Context(), workload(spec(r.Ref)), nil); err != nil {
				t.Fatal(err)
			}
		}
		s := spec(r.Ref)
		s.Digest = c.digest
		id, err := d.Prepare(t.Context(), workload(s), nil)
		if c.want == 0 && (err != nil || id != want) {
			t.Errorf("%s: got %s, %v", c.name, id, err)
		}
		if c.want != 0 && (err == nil || mesh.KindOf(err) != c.want) {
			t.Errorf("%s: got %s, %v, want %s", c.name, id, err, c.want)
		}
	}
}

func TestImageTooLargeIsNotKept(t *testing.T) {
	needEngine(t)
	d, err := docker.New(docker.Config{Node: newNode(t), MaxImage: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for name, content := range map[string][]byte{"on the wire": random(1 << 20), "unpacked": make([]byte, 1<<20)} {
		r := dockertest.NewRegistry(t, content)
		_, err = d.Prepare(t.Context(), workload(spec(r.Ref)), nil)
		if err == nil || mesh.KindOf(err) != mesh.TooLarge {
			t.Errorf("%s: got %v, want mesh.TooLarge", name, err)
		}
		if _, err := dockertest.Client(t).ImageInspect(t.Context(), r.ID); !errdefs.IsNotFound(err) {
			t.Errorf("%s: the image is here all the same: %v", name, err)
		}
	}
}

func random(size int) []byte {
	b := make([]byte, size)
	rand.Read(b)
	return b
}
