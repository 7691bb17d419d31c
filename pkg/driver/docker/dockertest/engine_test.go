package dockertest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
)

// An engine that was killed leaves neither mounts nor processes behind.
func TestDaemonLeavesNothing(t *testing.T) {
	var dir, name, id string
	ok := t.Run("killed", func(t *testing.T) {
		d := NewDaemon(t)
		dir, name = d.dir, d.name
		program, err := os.ReadFile(Program(t, filepath.Join("..", "testdata", "actor")))
		if err != nil {
			t.Fatal(err)
		}
		cli := ClientOf(t, d.Host)
		ref, _ := LoadInto(t, cli, "/program", Layer(t, map[string][]byte{"program": program}))
		made, err := cli.ContainerCreate(t.Context(), &container.Config{Image: ref, Cmd: []string{"hang"}}, &container.HostConfig{NetworkMode: "none"}, nil, nil, "")
		if err != nil {
			t.Fatal(err)
		}
		id = made.ID
		if err := cli.ContainerStart(t.Context(), id, container.StartOptions{}); err != nil {
			t.Fatal(err)
		}
		d.Kill()
		if mounts, _ := os.ReadFile("/proc/self/mountinfo"); !strings.Contains(string(mounts), dir+"/") {
			t.Error("nothing is left to be taken away")
		}
	})
	if !ok || dir == "" {
		return
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), dir) {
		t.Errorf("mounts are left: %v", err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("its directory is left: %v", err)
	}
	for _, group := range []string{"/sys/fs/cgroup/*/docker/" + id, "/sys/fs/cgroup/docker/" + id} {
		if left, _ := filepath.Glob(group); len(left) > 0 {
			t.Errorf("control groups are left: %q", left)
		}
	}
	if out, err := exec.Command("ip", "link", "show", name).CombinedOutput(); err == nil {
		t.Errorf("its bridge is left: %s", out)
	}
}
