package docker_test

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"peercompute/pkg/driver/docker"
	"peercompute/pkg/driver/docker/dockertest"
	"peercompute/pkg/mesh"
)

// An engine that ends takes its containers with it, politely. That is no end of the
// program's own, whatever its status.
func TestEngineRestart(t *testing.T) {
	needEngine(t)
	program, err := os.ReadFile(dockertest.Program(t, "testdata/actor"))
	if err != nil {
		t.Fatal(err)
	}
	engine := dockertest.NewDaemon(t)
	ref, _ := dockertest.LoadInto(t, dockertest.ClientOf(t, engine.Host), "/program", dockertest.Layer(t, map[string][]byte{"program": program}))
	d, err := docker.New(docker.Config{Node: newNode(t), Host: engine.Host, Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	w := workload(spec(ref, "polite"))
	task := start(t, d, w)
	if err := answer(t, task); err != nil {
		t.Fatal(err)
	}
	type end struct {
		exit mesh.Exit
		err  error
	}
	ended := make(chan end, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() { x, err := task.Wait(ctx); ended <- end{x, err} }()
	engine.Stop()
	select {
	case e := <-ended:
		t.Fatalf("while the engine is away: %+v", e)
	default:
	}
	engine.Start()
	if e := <-ended; e.err != nil || e.exit.Code != 0 || e.exit.Kind != mesh.Unavailable {
		t.Errorf("got %+v, want status 0 and mesh.Unavailable", e)
	}
	if err := answer(t, start(t, d, w)); err != nil {
		t.Errorf("started again: %v", err)
	}
}
