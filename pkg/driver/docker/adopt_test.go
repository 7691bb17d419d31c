package docker_test

import (
	"context"
	"maps"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"

	"peercompute/pkg/driver/docker/dockertest"
	"peercompute/pkg/mesh"
)

// What carries our labels and is not ours is left alone: neither adopted, nor
// removed.
func TestForgedContainersAreLeftAlone(t *testing.T) {
	needEngine(t)
	node := newNode(t)
	d := open(t, node)
	cli := dockertest.Client(t)
	image := dockertest.Image(t, "testdata/actor")
	w := workload(spec(image, "serve"))
	name := "peercompute-" + string(w.ID) + "-" + node.String()[len(node.String())-8:]
	labels := map[string]string{
		"peercompute.node": node.String(), "peercompute.workload": string(w.ID), "peercompute.owner": node.String(), "peercompute.port": "8080",
	}
	forged := create(t, cli, &container.Config{Image: image, Cmd: []string{"serve"}, Labels: labels}, nil, name)
	other := maps.Clone(labels)
	other["peercompute.node"] = newNode(t).String()
	create(t, cli, &container.Config{Image: image, Cmd: []string{"serve"}, Labels: other}, nil, "")

	tasks, err := d.Adopt(t.Context())
	if err != nil || len(tasks) != 0 {
		t.Errorf("adopted %d, %v", len(tasks), err)
	}
	if _, err := cli.ContainerInspect(t.Context(), forged); err != nil {
		t.Errorf("the forged container: %v", err)
	}
}

// A crash between create and start leaves a container that never ran.
func TestHalfMadeContainersAreRemoved(t *testing.T) {
	needEngine(t)
	node := newNode(t)
	d := open(t, node)
	cli := dockertest.Client(t)
	w := workload(spec(dockertest.Image(t, "testdata/actor"), "serve"))
	task := start(t, d, w)
	if err := task.Stop(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
	tasks, err := d.Adopt(t.Context())
	if err != nil || len(tasks) != 1 {
		t.Fatalf("the ended one: adopted %d, %v", len(tasks), err)
	}
	// The same container again, made and not started.
	name := "peercompute-" + string(w.ID) + "-" + node.String()[len(node.String())-8:]
	got, err := cli.ContainerInspect(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Remove(t.Context(), w.ID); err != nil {
		t.Fatal(err)
	}
	id := create(t, cli, got.Config, got.HostConfig, name)
	tasks, err = d.Adopt(t.Context())
	if err != nil || len(tasks) != 0 {
		t.Errorf("adopted %d, %v", len(tasks), err)
	}
	if _, err := cli.ContainerInspect(t.Context(), id); !errdefs.IsNotFound(err) {
		t.Errorf("what never ran is still there: %v", err)
	}
}

// Two nodes on one engine have nothing to do with each other.
func TestNodesAreApart(t *testing.T) {
	needEngine(t)
	ours, theirs := open(t, newNode(t)), open(t, newNode(t))
	task := start(t, ours, workload(spec(dockertest.Image(t, "testdata/actor"), "serve")))
	if tasks, err := theirs.Adopt(t.Context()); err != nil || len(tasks) != 0 {
		t.Errorf("adopted %d of another node, %v", len(tasks), err)
	}
	if err := theirs.Remove(t.Context(), task.ID()); err != nil {
		t.Errorf("remove: %v", err)
	}
	if err := answer(t, task); err != nil {
		t.Errorf("another node's Remove reached it: %v", err)
	}
	if _, err := theirs.Prepare(t.Context(), mesh.Workload{ID: task.ID(), Spec: mesh.Spec{Image: "../x"}}, nil); err == nil || mesh.KindOf(err) != mesh.Invalid {
		t.Errorf("got %v", err)
	}
}

// create makes a container that goes with the test, past the driver.
func create(t *testing.T, cli *client.Client, c *container.Config, h *container.HostConfig, name string) string {
	t.Helper()
	made, err := cli.ContainerCreate(t.Context(), c, h, nil, nil, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := cli.ContainerRemove(ctx, made.ID, container.RemoveOptions{Force: true}); err != nil && !errdefs.IsNotFound(err) {
			t.Error(err)
		}
	})
	return made.ID
}
