package docker_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/image"

	"peercompute/pkg/driver/docker/dockertest"
	"peercompute/pkg/mesh"
)

// What ran here before is found by its ID although its name means another image by
// now. For anything else a pin under that name is refused.
func TestImageThatRanBefore(t *testing.T) {
	needEngine(t)
	cli := dockertest.Client(t)
	before := dockertest.Image(t, "testdata/actor")
	after := dockertest.Image(t, "testdata/actor", "LABEL revision=2")
	name := before + "-moving"
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := cli.ImageRemove(ctx, name, image.RemoveOptions{}); err != nil {
			t.Errorf("cannot remove the tag: %v", err)
		}
	})
	d := open(t, newNode(t))
	if err := cli.ImageTag(t.Context(), before, name); err != nil {
		t.Fatal(err)
	}
	w := workload(spec(name, "print", "1", "0"))
	id, err := d.Prepare(t.Context(), w, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := cli.ImageTag(t.Context(), after, name); err != nil {
		t.Fatal(err)
	}
	w.Spec.Digest = id
	// An engine that keeps images with containerd knows what else is in the repository.
	if _, err := d.Prepare(t.Context(), w, nil); !dockertest.ByManifest(t) && (err == nil || mesh.KindOf(err) == mesh.Internal) {
		t.Errorf("a pin that the name does not mean: got %v, want a refusal", err)
	}
	w.Again = true
	if got, err := d.Prepare(t.Context(), w, nil); err != nil || got != id {
		t.Fatalf("what ran here before: got %s, %v; want %s", got, err, id)
	}
	if log, _ := output(t, d, w); !strings.HasPrefix(log, "line 1") {
		t.Errorf("it printed %q", log)
	}
}
