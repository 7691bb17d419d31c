package docker_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"flag"
	"maps"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"peercompute/pkg/driver/docker/dockertest"
)

var update = flag.Bool("update", false, "rewrite the golden table; read the difference before committing it")

// TestProbe runs a program that tries to leave its container in some two hundred
// ways, and compares what came of each with the committed table.
func TestProbe(t *testing.T) {
	needEngine(t)
	port, abstract := hostListens(t)
	args := append([]string{port, abstract}, hostAddresses(t)...)
	log, exit := output(t, open(t, newNode(t)), workload(spec(dockertest.Image(t, "testdata/probe"), args...)))
	if exit.Code != 0 {
		t.Fatalf("the probe ended with %+v: %s", exit, log)
	}
	got := map[string]string{}
	if err := json.Unmarshal([]byte(log), &got); err != nil {
		t.Fatalf("%v in %s", err, log)
	}
	for key, value := range maps.Clone(got) {
		ns, ok := strings.CutPrefix(key, "namespace ")
		if !ok {
			continue
		}
		delete(got, key)
		ours, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil {
			t.Fatal(err)
		}
		if gVisor() && value == "ENOENT" { // its kernel has no such namespaces
			continue
		}
		if value == ours || !strings.HasPrefix(value, ns+":") {
			t.Errorf("%s is %s, the host's %s", key, value, ours)
		}
	}
	golden := "testdata/probe.golden.json"
	if gVisor() {
		golden = "testdata/probe.runsc.golden.json"
	}
	compare(t, got, golden)
}

// gVisor reports whether workloads run under gVisor, whose own kernel answers their
// system calls. Our profile of them does not apply there.
func gVisor() bool {
	_, runtime := dockertest.Chosen()
	return strings.HasPrefix(runtime, "runsc")
}

func compare(t *testing.T, got map[string]string, path string) {
	t.Helper()
	if *update {
		var b bytes.Buffer
		out := json.NewEncoder(&b)
		out.SetEscapeHTML(false)
		out.SetIndent("", "  ")
		if err := out.Encode(got); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	if runtime.GOARCH != "amd64" {
		maps.DeleteFunc(want, func(k, _ string) bool { return strings.HasSuffix(k, " (amd64)") })
	}
	keys := slices.Collect(maps.Keys(want))
	for k := range got {
		if _, ok := want[k]; !ok {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		if got[k] != want[k] {
			t.Errorf("%s: got %q, want %q", k, got[k], want[k])
		}
	}
}

// hostListens opens what a workload must not reach: a port on every address of
// this machine, and an abstract UNIX socket.
func hostListens(t *testing.T) (port, abstract string) {
	t.Helper()
	tcp, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tcp.Close() })
	abstract = "peercompute-" + rand.Text()
	unix, err := net.Listen("unix", "@"+abstract)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close() })
	_, port, err = net.SplitHostPort(tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port, abstract
}

func hostAddresses(t *testing.T) (all []string) {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			all = append(all, n.IP.String())
		}
	}
	if len(all) == 0 {
		t.Fatal("this machine has no address of its own to try")
	}
	return all
}
