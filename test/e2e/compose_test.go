package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/driver/docker/dockertest"
	"peercompute/pkg/mesh"
	"peercompute/pkg/testkit"
	"peercompute/test/internal/testmesh"
)

// A Compose file of two services is deployed on a peer: what others depend on first,
// the published port as a public name. Deployed again nothing changes; changed, what
// changed is updated at the same URL.
func TestCompose(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "docker")
	testkit.Need(t, "root")
	m := testmesh.New(t)
	alice, bob, gw := m.Trio()
	image := container(t)
	file := filepath.Join(t.TempDir(), "compose.yaml")
	write := func(extra string) {
		t.Helper()
		text := fmt.Sprintf(`name: shop
services:
  web:
    image: %[1]s
    ports: ["80:8080"]
    depends_on: {store: {condition: service_healthy}}
%[2]s
  store:
    image: %[1]s
    expose: ["8080"]
    mem_limit: 64m
    secrets: [key]
    healthcheck: {test: ["CMD", "/program", "-h"], interval: 1s}
secrets: {key: {file: key.txt}}
`, image, extra)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	if err := os.WriteFile(filepath.Join(filepath.Dir(file), "key.txt"), []byte("a value that nobody prints"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := alice.Must("deploy", "--file", file, "--peer", "bob", "--dry-run"); strings.Count(out, "create") != 2 {
		t.Errorf("the plan is\n%s", out)
	}
	url := strings.TrimSpace(alice.Must("deploy", "--file", file, "--peer", "bob"))
	web := m.Web(gw)
	answers := func() bool {
		res, err := web.Get(url)
		if err != nil {
			return false
		}
		defer res.Body.Close()
		return res.StatusCode == http.StatusOK
	}
	if !answers() {
		t.Errorf("%s does not answer", url)
	}
	if out := alice.Must("secret", "ls", "--peer", "bob"); !strings.Contains(out, "shop-key") || !strings.Contains(out, "store") {
		t.Errorf("bob keeps\n%s", out)
	}
	before := bob.Must("ps")
	if !strings.Contains(before, "web") || !strings.Contains(before, "store") {
		t.Errorf("bob runs\n%s", before)
	}
	if out := alice.Must("deploy", "--file", file, "--peer", "bob", "--dry-run"); strings.Count(out, "keep") != 2 {
		t.Errorf("nothing changed, and the plan is\n%s", out)
	}
	write("    environment: {COLOUR: red}")
	if out := alice.Must("deploy", "--file", file, "--peer", "bob", "--dry-run"); !strings.Contains(out, "update") || strings.Count(out, "keep") != 1 {
		t.Errorf("one changed, and the plan is\n%s", out)
	}
	if again := strings.TrimSpace(alice.Must("deploy", "--file", file, "--peer", "bob")); again != url {
		t.Errorf("updated, it is at %s and no longer at %s", again, url)
	}
	within(t, 30*time.Second, "the new revision to answer", answers)
	if r := alice.Ctl("deploy", "--file", file, "--peer", "bob", "--memory", "1G"); r.Code != 2 {
		t.Errorf("a flag that the file should say: %+v", r)
	}
	if out := alice.Must("down", "--file", file, "--peer", "bob"); out != "shop-web\nshop-store\n" {
		t.Errorf("taken down:\n%s", out)
	}
	if out := bob.Must("ps", "-o", "json"); strings.Contains(out, "shop") {
		t.Errorf("and bob runs\n%s", out)
	}
}

// composeFile writes a Compose file into a directory of its own.
func composeFile(t *testing.T, dir, text string) (path string) {
	t.Helper()
	path = filepath.Join(dir, "compose.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Two networks, and a job that has to end before what depends on it starts: a service
// reaches those it shares a network with, by the names of the file. A job that fails stops
// the deploy, and what runs is left alone.
func TestComposeNetworksAndJobs(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "docker")
	testkit.Need(t, "tun")
	job := container(t)
	caller := dockertest.Image(t, filepath.Join(testmesh.ModuleRoot(t), "pkg", "driver", "docker", "testdata", "caller"))
	m := testmesh.New(t)
	alice, bob, gw := m.Trio()
	web, dir := m.Web(gw), t.TempDir()
	write := func(arg, environment, proxy string) string {
		return composeFile(t, dir, fmt.Sprintf(`name: two_nets
services:
%[5]s
  app_server:
    image: %[2]s
    ports: ["81:8080"]
    environment: {%[4]s}
    networks: {front: {aliases: [backend]}, back: {}}
    depends_on: {migrate: {condition: service_completed_successfully}}
  migrate:
    image: %[1]s
    entrypoint: /program
    command: ["%[3]s"]
    networks: [back]
    depends_on: [db]
  db:
    image: %[2]s
    expose: ["9000"]
    networks: [back]
networks:
  front: {}
  back: {internal: true}
`, job, caller, arg, environment, proxy))
	}
	proxy := fmt.Sprintf("  proxy:\n    image: %s\n    ports: ['80:8080']\n    networks: [front]\n    depends_on: [app_server]", caller)
	file := write("-h", "", proxy)
	urls := strings.Fields(alice.Must("deploy", "--file", file, "--peer", "bob"))
	if len(urls) != 2 || !strings.Contains(urls[0], "two-nets-app-server") || !strings.Contains(urls[1], "two-nets-proxy") {
		t.Fatalf("published at %q", urls)
	}
	for _, c := range []struct {
		from     string
		to       string
		reaches  bool
		patience string
	}{
		{urls[1], "backend:9000", true, "to"},
		{urls[1], "app_server:9000", true, "to"},
		{urls[1], "db:9000", false, "never"},
		{urls[0], "db:9000", true, "to"},
		{urls[0], "proxy:9000", true, "to"},
		{urls[0], "two-nets-db:9000", true, "to"},
	} {
		if _, body := get(t, web, c.from+"/tcp?"+c.patience+"="+c.to); (body == "pong") != c.reaches {
			t.Errorf("%s to %s: %s", c.from, c.to, body)
		}
	}
	if w := find(t, bob, "two-nets-migrate"); w.State != mesh.Exited {
		t.Errorf("the job is %s", w.State)
	}
	ids := func() (out []string) {
		for _, w := range parse[[]struct {
			Name     string
			Revision int
			State    mesh.State
		}](t, bob.Must("ps", "-o", "json")) {
			out = append(out, fmt.Sprint(w))
		}
		return out
	}
	before := ids()
	if out := alice.Must("deploy", "--file", file, "--peer", "bob", "--dry-run"); strings.Count(out, " keep ") != 4 {
		t.Errorf("nothing changed, and the plan is\n%s", out)
	}
	alice.Must("deploy", "--file", file, "--peer", "bob")
	if now := ids(); !slices.Equal(now, before) {
		t.Errorf("nothing changed, and now there is %q; there was %q", now, before)
	}

	// A job that fails: its log is shown, and the new app does not start.
	r := alice.Ctl("deploy", "--file", write("-nonsense", "COLOUR: red", proxy), "--peer", "bob")
	refused(t, r, "two-nets-migrate", "flag provided but not defined")
	if _, body := get(t, web, urls[0]+"/tcp?to=db:9000"); body != "pong" {
		t.Errorf("what served does so no longer: %s", body)
	}
	if w := parse[struct{ Revision int }](t, alice.Must("inspect", "two-nets-app-server", "-o", "json")); w.Revision != 1 {
		t.Errorf("the app is at revision %d though its job failed", w.Revision)
	}

	// Mended, and without the proxy: only what changed is deployed, and what is left is told.
	r = alice.Ctl("deploy", "--file", write("-h", "COLOUR: red", ""), "--peer", "bob")
	for _, want := range []string{
		"two-nets-db is running on bob (keep)", "two-nets-migrate is exited on bob (update)", "two-nets-app-server is running on bob (update)",
		"two-nets-proxy is no longer in the file; remove it with: peerctl rm -f two-nets-proxy",
	} {
		if r.Code != 0 || !strings.Contains(r.Stderr, want) {
			t.Errorf("it does not say %q: %+v", want, r)
		}
	}
	alice.Must("down", "two-nets", "--peer", "bob")
	if left := ps(t, bob); len(left) != 0 {
		t.Errorf("taken down, there is still %v", left)
	}
}

// An image that is built here from what the file says, and another that only this
// machine has, are deployed elsewhere; again only if they are other images by then.
func TestComposeBuild(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "docker")
	testkit.Need(t, "root")
	program := dockertest.Program(t, filepath.Join(testmesh.ModuleRoot(t), "examples", "hello-container"))
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	engine := dockertest.Engine(t)
	m := testmesh.New(t)
	alice, bob, gw := withEngine(t, m, "alice", engine), m.Peer("bob"), m.Gateway("gw")
	m.Lend(bob, alice)
	m.Route(bob, gw)
	cli := dockertest.ClientOf(t, engine)
	local, _ := dockertest.LoadInto(t, cli, "/program", dockertest.Layer(t, map[string][]byte{"program": data}))
	dir := t.TempDir()
	write := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write("program", data)
	write("unused", []byte("one"))
	file := composeFile(t, dir, fmt.Sprintf(`name: built
services:
  inline:
    build:
      context: .
      dockerfile_inline: |
        FROM scratch AS run
        ARG NAME=nobody
        LABEL name=$NAME
        COPY program /program
        ENV NAME=$NAME
        ENTRYPOINT ["/program"]
        FROM run
        ENTRYPOINT ["/nothing"]
      target: run
      args: {NAME: "${WHO:-somebody}"}
    ports: ["80:8080"]
    working_dir: /srv/app
  local:
    image: %s
    expose: ["8080"]
  tools:
    image: gone:1
    profiles: [tools]
`, local))
	url := strings.TrimSpace(alice.Must("deploy", "--file", file, "--peer", "bob"))
	t.Cleanup(func() {
		for _, i := range parse[[]pushedLine](t, bob.Must("image", "ls", "-o", "json")) {
			dockertest.Drop(t, i.Ref)
		}
	})
	if _, body := get(t, m.Web(gw), url+"/"); body != "hello from built-inline: GET /\n" {
		t.Errorf("%s answers %q", url, body)
	}
	write("unused", []byte("two")) // of the directory, not of the image
	for _, want := range []string{"built-inline is running on bob (keep)", "built-local is running on bob (keep)"} {
		if r := alice.Ctl("deploy", "--file", file, "--peer", "bob"); r.Code != 0 || !strings.Contains(r.Stderr, want) {
			t.Errorf("the images are the same, and it does not say %q: %+v", want, r)
		}
	}
	_, other := dockertest.LoadInto(t, cli, "/program", dockertest.Layer(t, map[string][]byte{"program": data, "more": []byte("more")}))
	if err := cli.ImageTag(t.Context(), other, local); err != nil {
		t.Fatal(err)
	}
	r := alice.Ctl("deploy", "--file", file, "--peer", "bob")
	for _, want := range []string{"built-inline is running on bob (keep)", "built-local is running on bob (update)"} {
		if r.Code != 0 || !strings.Contains(r.Stderr, want) {
			t.Errorf("one image is another, and it does not say %q: %+v", want, r)
		}
	}
	alice.Must("down", "built", "--peer", "bob")
}
