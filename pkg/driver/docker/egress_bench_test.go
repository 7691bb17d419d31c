package docker_test

import (
	"slices"
	"testing"
	"time"

	"peercompute/pkg/driver/docker"
	"peercompute/pkg/driver/docker/dockertest"
	"peercompute/pkg/mesh"
)

// BenchmarkDeployWithNetwork measures what a network adds to a start: from Prepare to
// the first 200, in turns without and with egress. Medians in ms.
func BenchmarkDeployWithNetwork(b *testing.B) {
	needEngine(b)
	image := dockertest.Image(b, "../../../examples/hello-container")
	d, err := docker.New(docker.Config{Node: newNode(b)})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	took := map[mesh.Egress][]float64{}
	for b.Loop() {
		for _, egress := range []mesh.Egress{mesh.EgressNone, mesh.EgressInternet} {
			began := time.Now()
			s := spec(image)
			s.Egress = egress
			w := workload(s)
			if _, err := d.Prepare(b.Context(), w, nil); err != nil {
				b.Fatal(err)
			}
			task, err := d.Start(b.Context(), w)
			if err != nil {
				b.Fatal(err)
			}
			first200(b, task.Dial)
			took[egress] = append(took[egress], float64(time.Since(began).Microseconds())/1000)
			if err := d.Remove(b.Context(), w.ID); err != nil {
				b.Fatal(err)
			}
		}
	}
	median := func(v []float64) float64 { slices.Sort(v); return v[len(v)/2] }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(took[mesh.EgressNone]), "none-ms")
	b.ReportMetric(median(took[mesh.EgressInternet]), "internet-ms")
}
