package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	for _, name := range []string{"web", "store"} {
		alice.Must("rm", "-f", name, "--peer", "bob")
	}
}
