package docker_test

import (
	"testing"

	"peercompute/pkg/driver/docker/dockertest"
)

// What lies in a container's scratch space is seen from outside, also by a driver
// that found the container.
func TestStatsOfScratch(t *testing.T) {
	needEngine(t)
	const size = 3 << 20
	node := newNode(t)
	d := open(t, node)
	task := start(t, d, workload(spec(dockertest.Image(t, "testdata/actor"), "keep", itoa(size))))
	for {
		c, err := task.Dial(t.Context())
		if err == nil {
			c.Close()
			break
		}
	}
	found, err := open(t, node).Adopt(t.Context())
	if err != nil || len(found) != 1 {
		t.Fatalf("adopted %d, %v", len(found), err)
	}
	for _, task := range append(found, task) {
		st, err := task.Stats(t.Context())
		if err != nil || st.Disk < size || st.Disk > size+1<<20 || st.PIDs < 1 || st.Memory == 0 {
			t.Errorf("got %+v, %v; want %d bytes of disk", st, err, size)
		}
	}
}
