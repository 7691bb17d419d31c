package docker

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/docker/docker/api/types/container"

	"peercompute/pkg/mesh"
)

// maxStats bounds the engine's answer about one container.
const maxStats = 1 << 20

// Stats is what the container uses now; mesh.Unavailable once it has ended.
func (t *task) Stats(ctx context.Context) (mesh.Stats, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := t.driver.cli.ContainerStatsOneShot(ctx, t.container)
	if err != nil {
		return mesh.Stats{}, t.driver.fail(err, "measure the container")
	}
	defer answer.Body.Close()
	var s container.StatsResponse
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxStats)).Decode(&s); err != nil {
		return mesh.Stats{}, t.driver.fail(err, "measure the container")
	}
	if s.PidsStats.Current == 0 {
		return mesh.Stats{}, mesh.Errorf(mesh.Unavailable, "workload %s has ended", t.id)
	}
	// Page cache that the kernel may drop at will is no use of the program's.
	cache := s.MemoryStats.Stats["inactive_file"] // cgroup 2
	if v, ok := s.MemoryStats.Stats["total_inactive_file"]; ok {
		cache = v
	}
	out := mesh.Stats{
		CPU:    time.Duration(s.CPUStats.CPUUsage.TotalUsage),
		Memory: int64(s.MemoryStats.Usage - min(cache, s.MemoryStats.Usage)),
		PIDs:   int64(s.PidsStats.Current),
	}
	if t.way != nil { // its network is its sandbox's, of which the engine knows nothing
		if out.Received, out.Sent, err = networkUsed(t.pid, t.container); err != nil {
			t.driver.log.Debug("cannot measure the network of a container", "workload", t.id, "err", err)
		}
	}
	if out.Disk, err = diskUsed(t.pid, t.container, t.scratch); err != nil {
		t.driver.log.Debug("cannot measure the scratch space of a container", "workload", t.id, "err", err)
	}
	return out, nil
}
