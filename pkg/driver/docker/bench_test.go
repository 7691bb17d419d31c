package docker_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/driver/docker/dockertest"
	"peercompute/pkg/testkit"
)

// BenchmarkDeploy measures, in turns, from the request to the first 200: our
// Prepare, Start and Dial, against "docker run -d" of the same image and its
// address on the engine's bridge. It reports both medians in ms and their ratio.
func BenchmarkDeploy(b *testing.B) {
	needEngine(b)
	testkit.Need(b, "docker")
	if _, err := exec.LookPath("docker"); err != nil {
		b.Skip("needs the docker command")
	}
	image := dockertest.Image(b, "../../../examples/hello-container")
	d := open(b, newNode(b))
	var ours, theirs []float64
	ms := func(began time.Time) float64 { return float64(time.Since(began).Microseconds()) / 1000 }
	for b.Loop() {
		began := time.Now()
		w := workload(spec(image))
		if _, err := d.Prepare(b.Context(), w, nil); err != nil {
			b.Fatal(err)
		}
		task, err := d.Start(b.Context(), w)
		if err != nil {
			b.Fatal(err)
		}
		first200(b, task.Dial)
		ours = append(ours, ms(began))
		if err := d.Remove(b.Context(), w.ID); err != nil {
			b.Fatal(err)
		}

		began = time.Now()
		id := command(b, "docker", "run", "-d", image)
		addr := command(b, "docker", "inspect", "-f", "{{.NetworkSettings.IPAddress}}", id) + ":8080"
		first200(b, func(ctx context.Context) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "tcp", addr)
		})
		theirs = append(theirs, ms(began))
		command(b, "docker", "rm", "-f", id)
	}
	median := func(v []float64) float64 { slices.Sort(v); return v[len(v)/2] }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(ours), "ours-ms")
	b.ReportMetric(median(theirs), "docker-run-ms")
	b.ReportMetric(median(ours)/median(theirs), "ratio")
}

func first200(b *testing.B, dial func(context.Context) (net.Conn, error)) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := dial(ctx)
		if err == nil {
			defer conn.Close()
			if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
				b.Fatal(err)
			}
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || res.StatusCode != http.StatusOK {
				b.Fatalf("got %v, %v", res, err)
			}
			res.Body.Close()
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			b.Fatal(err)
		}
	}
}

func command(b *testing.B, name string, args ...string) string {
	b.Helper()
	out, err := exec.CommandContext(b.Context(), name, args...).Output()
	if err != nil {
		b.Fatalf("%s %s: %v", name, args[0], err)
	}
	return strings.TrimSpace(string(out))
}

// BenchmarkDial measures a connection to a running workload and its end, by one
// caller and by many.
func BenchmarkDial(b *testing.B) {
	needEngine(b)
	d := open(b, newNode(b))
	task := start(b, d, workload(spec(dockertest.Image(b, "../../../examples/hello-container"))))
	first200(b, task.Dial)
	dial := func(b *testing.B) {
		conn, err := task.Dial(b.Context())
		if err != nil {
			b.Error(err)
			return
		}
		conn.(*net.TCPConn).SetLinger(0) // no port waits behind it
		conn.Close()
	}
	b.Run("one", func(b *testing.B) {
		for b.Loop() {
			dial(b)
		}
	})
	b.Run("many", func(b *testing.B) {
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				dial(b)
			}
		})
	})
}
