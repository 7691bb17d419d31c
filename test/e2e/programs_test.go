package e2e

import (
	"bufio"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	dockercontainer "github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"

	"peercompute/pkg/driver/docker/dockertest"
	"peercompute/pkg/mesh"
	"peercompute/pkg/testkit"
	"peercompute/test/internal/testmesh"
)

// Programs that nobody here wrote run as their distribution built them, under all that
// confines a container, and outlive peerd's crash, their own, and their engine's end. What
// they wrote to a volume is there still.
func TestRealPrograms(t *testing.T) {
	t.Parallel()
	for _, need := range []string{"docker", "root", "loopfs", "nginx", "redis-check-rdb", "postgresql", "libnss_wrapper.so", "ldd"} {
		testkit.Need(t, need)
	}
	engine := dockertest.NewDaemon(t)
	cli := dockertest.ClientOf(t, engine.Host)
	web, _ := dockertest.LoadInto(t, cli, "/usr/sbin/nginx", packaged(t, []string{"nginx", "/usr/sbin/nginx"}, map[string]string{
		// As the images of nginx have it: it is made to be started by root.
		"etc/passwd":                      "root:x:0:0:root:/root:/bin/sh\nnginx:x:101:101::/var/cache/nginx:/bin/false\n",
		"etc/group":                       "root:x:0:\nnginx:x:101:\n",
		"etc/nginx/nginx.conf":            "user nginx;\nworker_processes auto;\nerror_log /dev/stderr notice;\npid /run/nginx.pid;\nevents { worker_connections 1024; }\nhttp {\n  access_log /dev/stdout;\n  client_body_temp_path /var/cache/nginx/client;\n  proxy_temp_path /var/cache/nginx/proxy;\n  fastcgi_temp_path /var/cache/nginx/fastcgi;\n  uwsgi_temp_path /var/cache/nginx/uwsgi;\n  scgi_temp_path /var/cache/nginx/scgi;\n  server { listen 80; root /usr/share/nginx/html; }\n}\n",
		"usr/share/nginx/html/index.html": "from nginx\n",
		"var/cache/nginx/.keep":           "",
	}))
	store, _ := dockertest.LoadInto(t, cli, "/usr/bin/redis-server", packaged(t, []string{"redis-check-rdb", "/usr/bin/redis-server"}, nil))
	database, _ := dockertest.LoadInto(t, cli, "/entrypoint", postgres(t))

	m := testmesh.New(t)
	alice, bob, gw := m.Peer("alice"), withEngine(t, m, "bob", engine.Host), m.Gateway("gw")
	m.Lend(bob, alice)
	m.Route(bob, gw)

	// What it may not write it says, and what to do about it is said too.
	// It listens before it tries to write: only an answer shows that it runs.
	refused(t, alice.Ctl("deploy", web, "--peer", "bob", "--name", "strict", "--port", "80", "--health", "http:/", "--restart", "no", "--", "-g", "daemon off;"), "Read-only file system", "--tmpfs /")
	alice.Must("rm", "-f", "strict")
	site := deploy(t, alice, web, "--peer", "bob", "--name", "site", "--port", "80", "--publish",
		"--tmpfs", "/run", "--tmpfs", "/var/cache/nginx", "--", "-g", "daemon off;")
	keys := deploy(t, alice, store, "--peer", "bob", "--name", "keys", "--port", "6379", "-v", "keys:/data:size=32M", "--", "--dir", "/data", "--appendonly", "yes")

	if r := alice.CtlIn([]byte(password), "secret", "set", "postgres", "--peer", "bob"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	data := []string{"--peer", "bob", "--port", "5432", "--secret", "postgres", "-v", "rows:/var/lib/postgresql/data:size=128M", "--restart", "always"}
	refused(t, alice.Ctl(append(append([]string{"deploy", database, "--name", "strict"}, data...), "--restart", "no")...), "--tmpfs /var/run/postgresql")
	alice.Must("rm", "-f", "strict")
	rows := deploy(t, alice, append([]string{database, "--name", "rows", "--tmpfs", "/var/run/postgresql"}, data...)...)

	browser := m.Web(gw)
	answer := func() error {
		res, err := browser.Get(site.URL + "/")
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("nginx answers %s", res.Status)
		}
		return nil
	}
	if err := answer(); err != nil {
		t.Fatal(err)
	}
	if got, err := ask(t, alice, "keys", "SET k v", "GET k"); err != nil || got != "+OK $1 v" {
		t.Fatalf("redis says %q, %v", got, err)
	}
	if said, err := query(t, alice, "rows", "CREATE TABLE t (n int); INSERT INTO t SELECT generate_series(1, 1000); SELECT sum(n) FROM t"); err != nil || !strings.HasSuffix(said, "500500") {
		t.Fatalf("postgres says %q, %v", said, err)
	}
	// kept requires that all answer, with what was written to volumes.
	kept := func(after string) {
		t.Helper()
		within(t, time.Minute, "nginx to answer after "+after, func() bool { return answer() == nil })
		var said string
		within(t, time.Minute, "redis to answer after "+after, func() bool { // it listens before it has loaded what it kept
			var err error
			said, err = ask(t, alice, "keys", "GET k")
			return err == nil && !strings.HasPrefix(said, "-LOADING")
		})
		if said != "$1 v" {
			t.Errorf("after %s redis says %q", after, said)
		}
		within(t, time.Minute, "postgres to answer after "+after, func() (ok bool) {
			var err error
			said, err = query(t, alice, "rows", "SELECT sum(n) FROM t")
			return err == nil
		})
		if said != "500500" {
			t.Errorf("after %s the rows are %q", after, said)
		}
	}

	was := boxes(t, cli, bob)
	bob.Kill()
	bob.Start()
	kept("peerd's crash")
	if now := boxes(t, cli, bob); !maps.Equal(now, was) || len(now) != 3 {
		t.Errorf("peerd's crash changed the containers: %v, were %v", now, was)
	}
	for _, id := range []mesh.WorkloadID{keys.ID, rows.ID} {
		if err := cli.ContainerKill(t.Context(), was[id], "KILL"); err != nil {
			t.Error(err)
		}
	}
	within(t, time.Minute, "other containers", func() bool {
		now := boxes(t, cli, bob)
		return now[keys.ID] != was[keys.ID] && now[rows.ID] != was[rows.ID] && len(now) == 3
	})
	kept("their crash")

	// The engine ends them politely, which is no end of their own. They are started
	// again, with what lay in memory gone.
	engine.Stop()
	if state := find(t, alice, "site").State; state.Final() {
		t.Errorf("while the engine is away nginx is %s", state)
	}
	engine.Start()
	kept("the engine's restart")
	engine.Kill()
	engine.Start()
	kept("the engine's crash")

	for _, name := range []string{"site", "keys", "rows"} {
		alice.Must("rm", "-f", name)
	}
	within(t, 20*time.Second, "the containers to be gone", func() bool { return len(boxes(t, cli, bob)) == 0 })
	alice.Must("volume", "rm", "keys", "rows", "--peer", "bob")
	if left := volumesOf(t, bob); len(left) > 0 {
		t.Errorf("left: %+v", left)
	}
}

// packaged is a layer with programs of this machine (where each lies, and where it is to
// lie), the libraries that they are linked to, and further files.
func packaged(t *testing.T, programs []string, more map[string]string) []byte {
	t.Helper()
	files := map[string][]byte{}
	for name, text := range more {
		files[name] = []byte(text)
	}
	for pair := range slices.Chunk(programs, 2) {
		addProgram(t, files, pair[0], pair[1])
	}
	return dockertest.Layer(t, files)
}

// addProgram adds a program and the libraries that it is linked to.
func addProgram(t *testing.T, files map[string][]byte, program, as string) {
	t.Helper()
	file, err := exec.LookPath(program)
	if err != nil {
		t.Fatal(err)
	}
	said, err := exec.Command("ldd", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	addFile(t, files, file, as)
	for _, lib := range regexp.MustCompile(`/\S+`).FindAllString(string(said), -1) {
		addFile(t, files, lib, filepath.Clean(lib))
	}
}

func addFile(t *testing.T, files map[string][]byte, file, as string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	files[strings.TrimPrefix(as, "/")] = data
}

// boxes is the engine's ID of each workload's container.
func boxes(t *testing.T, cli *client.Client, n *testmesh.Node) map[mesh.WorkloadID]string {
	t.Helper()
	list, err := cli.ContainerList(t.Context(), dockercontainer.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", "peercompute.node="+n.ID().String()))})
	if err != nil {
		t.Fatal(err)
	}
	out := map[mesh.WorkloadID]string{}
	for _, c := range list {
		out[mesh.WorkloadID(c.Labels["peercompute.workload"])] = c.ID
	}
	return out
}

// forwarded is an address of this machine that leads to a workload's port, until done.
func forwarded(t *testing.T, n *testmesh.Node, name, port string) (addr string, done func()) {
	t.Helper()
	p := begin(t, n, nil, "port-forward", name, "0:"+port)
	return regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(p.line(t)), func() { p.end(t) }
}

// ask sends redis commands through a forwarded port, and returns the lines it answers.
func ask(t *testing.T, n *testmesh.Node, name string, commands ...string) (string, error) {
	t.Helper()
	addr, done := forwarded(t, n, name, "6379")
	defer done()
	c, err := net.DialTimeout("tcp", addr, 20*time.Second)
	if err != nil { // reset at once: it does not listen yet
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(c, "%s\r\nQUIT\r\n", strings.Join(commands, "\r\n")); err != nil {
		return "", err
	}
	var lines []string
	for s := bufio.NewScanner(c); s.Scan(); {
		lines = append(lines, s.Text())
	}
	if len(lines) == 0 || lines[len(lines)-1] != "+OK" {
		return "", fmt.Errorf("redis says %q", lines)
	}
	return strings.Join(lines[:len(lines)-1], " "), nil
}
