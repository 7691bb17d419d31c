package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"peercompute/test/internal/testmesh"
)

type usageLine struct {
	Name, Peer, Kind string
	CPU              *float64
	Memory           int64
	MemoryLimit      int64 `json:"memory_limit"`
	PIDs             int64
	Fuel             uint64
}

// What a container and a guest use is seen by their owner, once and live.
func TestStats(t *testing.T) {
	t.Parallel()
	image := container(t)
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.Peer("bob")
	m.Lend(bob, alice)
	deploy(t, alice, image, "--peer", "bob", "--name", "box", "--port", "8080", "--memory", "64M")
	deploy(t, alice, testmesh.Tiny(t, "hello"), "--peer", "bob", "--name", "hello")
	deploy(t, bob, testmesh.Tiny(t, "his own"), "--peer", "self", "--name", "own")

	var list []usageLine
	within(t, time.Minute, "both to be measured", func() bool { // what the engine says too late is left out
		list = parse[[]usageLine](t, alice.Must("stats", "-o", "json"))
		return len(list) == 2
	})
	if list[0].Name != "box" || list[1].Name != "hello" {
		t.Fatalf("alice sees %+v", list)
	}
	box, hello := list[0], list[1]
	if box.CPU == nil || box.Memory <= 0 || box.MemoryLimit != 64<<20 || box.PIDs < 1 || box.Peer != "bob" || box.Kind != "container" {
		t.Errorf("the container: %+v", box)
	}
	if hello.CPU == nil || hello.Kind != "wasm" {
		t.Errorf("the guest: %+v", hello)
	}
	within(t, time.Minute, "bob to see all three", func() bool {
		table := bob.Must("stats")
		return strings.Count(table, "\n") == 4 && strings.Contains(table, "own")
	})
	within(t, time.Minute, "one of them", func() bool {
		table := alice.Must("top", "box")
		return strings.Contains(table, "box") && !strings.Contains(table, "hello")
	})

	live := begin(t, alice, nil, "top", "-o", "json", "--every", "1s", "box")
	for i := range 3 {
		var u usageLine
		if err := json.Unmarshal([]byte(live.line(t)), &u); err != nil || u.Name != "box" || i == 2 && u.CPU == nil {
			t.Errorf("line %d: %+v, %v", i, u, err)
		}
	}
	alice.Must("stop", "box")
	if code := live.end(t); code != 130 {
		t.Errorf("exit %d after Ctrl-C", code)
	}
	within(t, 20*time.Second, "the box to be gone", func() bool { return !strings.Contains(alice.Must("stats"), "box") })
}
