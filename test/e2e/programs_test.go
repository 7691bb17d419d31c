package e2e

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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
// confines a container, and outlive peerd's crash and their engine's restart.
func TestRealPrograms(t *testing.T) {
	t.Parallel()
	for _, need := range []string{"docker", "root", "nginx", "redis-check-rdb", "ldd"} {
		testkit.Need(t, need)
	}
	engine := dockertest.NewDaemon(t)
	cli := dockertest.ClientOf(t, engine.Host)
	web, _ := dockertest.LoadInto(t, cli, "/usr/sbin/nginx", packaged(t, "nginx", "/usr/sbin/nginx", map[string]string{
		// As the images of nginx have it: it is made to be started by root.
		"etc/passwd":                      "root:x:0:0:root:/root:/bin/sh\nnginx:x:101:101::/var/cache/nginx:/bin/false\n",
		"etc/group":                       "root:x:0:\nnginx:x:101:\n",
		"etc/nginx/nginx.conf":            "user nginx;\nworker_processes auto;\nerror_log /dev/stderr notice;\npid /run/nginx.pid;\nevents { worker_connections 1024; }\nhttp {\n  access_log /dev/stdout;\n  client_body_temp_path /var/cache/nginx/client;\n  proxy_temp_path /var/cache/nginx/proxy;\n  fastcgi_temp_path /var/cache/nginx/fastcgi;\n  uwsgi_temp_path /var/cache/nginx/uwsgi;\n  scgi_temp_path /var/cache/nginx/scgi;\n  server { listen 80; root /usr/share/nginx/html; }\n}\n",
		"usr/share/nginx/html/index.html": "from nginx\n",
		"var/cache/nginx/.keep":           "",
	}))
	store, _ := dockertest.LoadInto(t, cli, "/usr/bin/redis-server", packaged(t, "redis-check-rdb", "/usr/bin/redis-server", nil))

	m := testmesh.New(t)
	alice, bob, gw := m.Peer("alice"), withEngine(t, m, "bob", engine.Host), m.Gateway("gw")
	m.Lend(bob, alice)
	m.Route(bob, gw)

	// What it may not write it says, and what to do about it is said too.
	refused(t, alice.Ctl("deploy", web, "--peer", "bob", "--name", "strict", "--port", "80", "--restart", "no", "--", "-g", "daemon off;"), "Read-only file system", "--tmpfs")
	alice.Must("rm", "-f", "strict")
	site := deploy(t, alice, web, "--peer", "bob", "--name", "site", "--port", "80", "--publish",
		"--tmpfs", "/run", "--tmpfs", "/var/cache/nginx", "--", "-g", "daemon off;")
	keys := deploy(t, alice, store, "--peer", "bob", "--name", "keys", "--port", "6379", "--", "--dir", "/tmp", "--appendonly", "yes")

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
	if got := ask(t, alice, "keys", "SET k v", "GET k"); got != "+OK $1 v" {
		t.Fatalf("redis says %q", got)
	}

	was := boxes(t, cli, bob)
	bob.Kill()
	bob.Start()
	within(t, 20*time.Second, "nginx to answer again", func() bool { return answer() == nil })
	if got := ask(t, alice, "keys", "GET k"); got != "$1 v" {
		t.Errorf("after peerd's crash redis says %q", got)
	}
	if now := boxes(t, cli, bob); now[site.ID] != was[site.ID] || now[keys.ID] != was[keys.ID] || len(now) != 2 {
		t.Errorf("peerd's crash changed the containers: %v, were %v", now, was)
	}

	// The engine ends them politely, which is no end of their own. They are started
	// again, with what lay in memory gone.
	engine.Stop()
	if state := find(t, alice, "site").State; state.Final() {
		t.Errorf("while the engine is away nginx is %s", state)
	}
	engine.Start()
	within(t, time.Minute, "nginx to answer again", func() bool { return answer() == nil })
	within(t, time.Minute, "redis to run again", func() bool { return find(t, alice, "keys").State == mesh.Running })
	if got := ask(t, alice, "keys", "PING"); got != "+PONG" {
		t.Errorf("after the engine's restart redis says %q", got)
	}
	alice.Must("rm", "-f", "site")
	alice.Must("rm", "-f", "keys")
	within(t, 20*time.Second, "the containers to be gone", func() bool { return len(boxes(t, cli, bob)) == 0 })
}

// packaged is a layer with a program of this machine, the libraries that it is linked
// to, and further files.
func packaged(t *testing.T, program, as string, more map[string]string) []byte {
	t.Helper()
	file, err := exec.LookPath(program)
	if err != nil {
		t.Fatal(err)
	}
	said, err := exec.Command("ldd", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for name, text := range more {
		files[name] = []byte(text)
	}
	add := func(file, as string) {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(as, "/")] = data
	}
	add(file, as)
	for _, lib := range regexp.MustCompile(`/\S+`).FindAllString(string(said), -1) {
		add(lib, filepath.Clean(lib))
	}
	return dockertest.Layer(t, files)
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

// ask sends redis commands through a forwarded port, and returns the lines it answers.
func ask(t *testing.T, n *testmesh.Node, name string, commands ...string) string {
	t.Helper()
	p := begin(t, n, nil, "port-forward", name, "0:6379")
	defer p.end(t)
	addr := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(p.line(t))
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(c, "%s\r\nQUIT\r\n", strings.Join(commands, "\r\n")); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for s := bufio.NewScanner(c); s.Scan(); {
		lines = append(lines, s.Text())
	}
	if len(lines) == 0 || lines[len(lines)-1] != "+OK" {
		t.Fatalf("redis says %q", lines)
	}
	return strings.Join(lines[:len(lines)-1], " ")
}
