package docker

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"

	"peercompute/pkg/mesh"
)

// withSecrets adds what placeSecrets does to a container of made.
func withSecrets(t *testing.T) (blueprint, container.InspectResponse) {
	t.Helper()
	want, got := made(t)
	m := secretsMount(testNode, "aaaaaaaaaaaaaaaa")
	want.host.Mounts = append(want.host.Mounts, m)
	want.config.Labels[labelSecrets] = "yes"
	got.Config.Labels[labelSecrets] = "yes"
	got.HostConfig.Mounts = append(got.HostConfig.Mounts, m)
	got.Mounts = append(got.Mounts, container.MountPoint{Type: mount.TypeVolume, Name: m.Source, Destination: m.Target, Driver: "local", Mode: "z"})
	return want, got
}

// A container may have its own run's secrets, read-only and in their place, and no other
// mount on their account.
func TestOnlyTheRunsSecrets(t *testing.T) {
	want, got := withSecrets(t)
	no := func(string) bool { return false }
	if err := check(want, testEngine, got); err != nil {
		t.Error(err)
	}
	if err := confined(got, no); err != nil {
		t.Error(err)
	}
	last := func(c *container.InspectResponse) (*mount.Mount, *container.MountPoint) {
		return &c.HostConfig.Mounts[len(c.HostConfig.Mounts)-1], &c.Mounts[len(c.Mounts)-1]
	}
	for what, change := range map[string]func(m *mount.Mount, p *container.MountPoint){
		"a directory of the host": func(m *mount.Mount, p *container.MountPoint) {
			m.Type, m.Source, p.Type, p.Source = mount.TypeBind, "/etc", mount.TypeBind, "/etc"
		},
		"another place": func(m *mount.Mount, p *container.MountPoint) { m.Target, p.Destination = "/etc", "/etc" },
		"writable":      func(m *mount.Mount, p *container.MountPoint) { m.ReadOnly, p.RW = false, true },
		"another run's": func(m *mount.Mount, p *container.MountPoint) {
			m.Source = secretsName(testNode, "bbbbbbbbbbbbbbbb")
			p.Name = m.Source
		},
		"another driver's": func(_ *mount.Mount, p *container.MountPoint) { p.Driver = "nfs" },
	} {
		want, got := withSecrets(t)
		change(last(&got))
		if check(want, testEngine, got) == nil {
			t.Errorf("%s: it passes as made", what)
		}
		if confined(got, no) == nil {
			t.Errorf("%s: it is adopted", what)
		}
	}
	_, got = withSecrets(t)
	delete(got.Config.Labels, labelSecrets)
	if confined(got, no) == nil {
		t.Error("without its label: it is adopted")
	}
}

// Only the workload's user can read them, and only root finds them.
func TestWriteSecrets(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("files of another user need root")
	}
	dir := filepath.Join(t.TempDir(), "run")
	if err := writeSecrets(dir, map[string][]byte{"key": []byte("x")}, "1234567", false); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{dir: os.ModeDir | 0o500, filepath.Join(dir, "key"): 0o400} {
		if st, err := os.Lstat(path); err != nil || st.Mode() != mode {
			t.Errorf("%s is %v, %v", path, st.Mode(), err)
		}
	}
	for what, c := range map[string]struct{ name, user string }{"a path": {"../key", "1"}, "root": {"key", "0"}, "nobody": {"key", ""}} {
		if err := writeSecrets(filepath.Join(t.TempDir(), "run"), map[string][]byte{c.name: []byte("x")}, c.user, false); err == nil {
			t.Errorf("%s was taken", what)
		}
	}
}

// What is another's, or open to others, keeps no secrets.
func TestOwnDir(t *testing.T) {
	top := t.TempDir()
	good, open, link := filepath.Join(top, "good"), filepath.Join(top, "open"), filepath.Join(top, "link")
	if err := os.Mkdir(good, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(good, link); err != nil {
		t.Fatal(err)
	}
	if err := ownDir(good); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{open, link, filepath.Join(top, "none")} {
		if ownDir(bad) == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

func TestSecretsOfASpec(t *testing.T) {
	s := func(m ...mesh.SecretMount) mesh.Spec {
		return mesh.Spec{Name: "x", Runtime: mesh.Container, Image: "x", Secrets: m}
	}
	if err := s(mesh.SecretMount{Name: "a"}, mesh.SecretMount{Name: "b", Target: "B.pem"}).Validate(); err != nil {
		t.Error(err)
	}
	guest := s(mesh.SecretMount{Name: "a"})
	guest.Runtime, guest.Shape, guest.Digest = mesh.Wasm, mesh.HTTP, "sha256:"+strings.Repeat("a", 64)
	volume := s(mesh.SecretMount{Name: "a"})
	volume.Volumes = []mesh.VolumeMount{{Name: "v", Target: "/run"}}
	for what, bad := range map[string]mesh.Spec{
		"a path": s(mesh.SecretMount{Name: "a", Target: "../x"}), "a directory": s(mesh.SecretMount{Name: "a", Target: "x/y"}),
		"dots": s(mesh.SecretMount{Name: "a", Target: ".."}), "no name": s(mesh.SecretMount{Target: "x"}),
		"twice": s(mesh.SecretMount{Name: "a"}, mesh.SecretMount{Name: "b", Target: "a"}), "of a guest": guest, "in a volume": volume,
		"many": s(make([]mesh.SecretMount, mesh.MaxSecretMounts+1)...),
	} {
		if bad.Validate() == nil {
			t.Errorf("%s: valid", what)
		}
	}
}

// Under gVisor secrets could not be seen to be in place: a workload with some does not
// start, and its owner reads why. Nothing is written before.
func TestNoSecretsInSandboxes(t *testing.T) {
	d := &Driver{node: testNode, secrets: func(context.Context, mesh.Workload) (map[string][]byte, error) {
		t.Error("the values were read")
		return nil, nil
	}}
	w := mesh.Workload{ID: "aaaaaaaaaaaaaaaa", Spec: mesh.Spec{Secrets: []mesh.SecretMount{{Name: "db"}}}}
	want, _ := made(t)
	dir, err := d.placeSecrets(t.Context(), engine{sandboxes: true}, w, &want)
	if dir != "" || mesh.KindOf(err) != mesh.Unsupported || !strings.Contains(err.Error(), "gVisor") {
		t.Errorf("%q, %v", dir, err)
	}
}
