package docker

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	enginevolume "github.com/docker/docker/api/types/volume"

	"peercompute/pkg/mesh"
)

// This file is how secrets get into a container: as files in a directory that peerd
// makes before the container starts, on a file system in memory. The engine is told of it
// as a volume of its own under a name that follows from the run; its path is made here of
// constants and the run's ID. No value is in anything that the engine knows.

// labelSecrets says that a container has its run's secrets.
const labelSecrets = "peercompute.secrets"

// memoryDirs are where a file system in memory usually is.
var memoryDirs = [...]string{"/run", "/dev/shm"}

// secretsName is what the secrets of a run are called at the engine.
func secretsName(node mesh.PeerID, run mesh.WorkloadID) string {
	return containerName(node, run) + "-secrets"
}

// secretsBase is this node's directory for secrets, there only while it has some.
func (d *Driver) secretsBase() (string, error) {
	h := sha256.Sum256([]byte("peercompute/secrets/1\x00" + d.node))
	name := "peercompute-" + strings.ToLower(base32.StdEncoding.EncodeToString(h[:10]))
	for _, dir := range memoryDirs {
		if isMemory(dir) {
			return filepath.Join(dir, name), nil
		}
	}
	return "", mesh.Errorf(mesh.Unsupported, "this machine has no file system in memory for secrets").
		WithHint("its owner can mount a tmpfs at /run")
}

// placeSecrets makes the files of a run's secrets, for its user, tells the engine of them,
// and adds them to what the container gets. It returns their directory, also beside an
// error; empty = there are none.
func (d *Driver) placeSecrets(ctx context.Context, e engine, w mesh.Workload, want *blueprint) (string, error) {
	if len(w.Spec.Secrets) == 0 {
		return "", nil
	}
	if d.secrets == nil {
		return "", mesh.Errorf(mesh.Unsupported, "there are no secrets on this machine")
	}
	if e.sandboxes {
		return "", mesh.Errorf(mesh.Unsupported, "under gVisor containers get no secrets here: they could be seen to be in place")
	}
	values, err := d.secrets(ctx, w)
	if err != nil {
		return "", err
	}
	base, err := d.secretsBase()
	if err != nil {
		return "", fmt.Errorf("cannot make a place for secrets: %w", err)
	}
	// An earlier run of it may hold them still.
	if err := errors.Join(d.removeContainer(ctx, want.name), d.dropSecrets(ctx, w.ID)); err != nil {
		return "", err
	}
	for scratch := range want.host.Tmpfs {
		if under(scratch, mesh.SecretsDir) {
			delete(want.host.Tmpfs, scratch)
		}
	}
	user, _, _ := strings.Cut(want.config.User, ":")
	// Another name each time: the end of an earlier run takes away nothing of this one.
	dir := filepath.Join(base, string(w.ID)+"."+strings.ToLower(rand.Text()))
	if err := d.writeSecretsIn(base, dir, values, user, e.remaps); err != nil {
		return dir, fmt.Errorf("cannot write the secrets of a workload: %w", err)
	}
	v := enginevolume.CreateOptions{
		Name: secretsName(d.node, w.ID), Driver: "local",
		DriverOpts: map[string]string{"type": "none", "device": dir, "o": "bind"},
		Labels:     map[string]string{labelNode: d.node.String(), labelWorkload: string(w.ID)},
	}
	got, err := d.cli.VolumeCreate(ctx, v)
	if err != nil {
		return dir, d.fail(err, "make a place for secrets")
	}
	if err := checkEngineVolume(v, got); err != nil {
		return dir, err
	}
	want.host.Mounts = append(want.host.Mounts, secretsMount(d.node, w.ID))
	want.config.Labels[labelSecrets] = "yes"
	return dir, nil
}

func secretsMount(node mesh.PeerID, run mesh.WorkloadID) mount.Mount {
	return mount.Mount{
		Type: mount.TypeVolume, Source: secretsName(node, run), Target: mesh.SecretsDir, ReadOnly: true,
		VolumeOptions: &mount.VolumeOptions{NoCopy: true},
	}
}

// writeSecretsIn writes the files below this node's directory, which is made with them:
// the end of another run removes it where it is empty.
func (d *Driver) writeSecretsIn(base, dir string, values map[string][]byte, user string, remapped bool) error {
	d.secretsDir.Lock()
	defer d.secretsDir.Unlock()
	if err := os.Mkdir(base, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	// Others may write to /dev/shm, and could have been there first.
	if err := ownDir(base); err != nil {
		return err
	}
	return writeSecrets(dir, values, user, remapped)
}

// writeSecrets writes a file for each value, which only user may read.
func writeSecrets(dir string, values map[string][]byte, user string, remapped bool) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	id, err := strconv.Atoi(user)
	if err != nil || id <= 0 {
		return errors.New("the workload has no user of its own")
	}
	dirMode, fileMode := os.FileMode(0o500), os.FileMode(0o400)
	if remapped { // who that is outside the engine does not tell; nobody else gets here
		dirMode, fileMode = 0o555, 0o444
	}
	for name, value := range values {
		path := filepath.Join(dir, name)
		if filepath.Base(path) != name {
			return errors.New("a secret's file has no plain name")
		}
		if err := os.WriteFile(path, value, 0o400); err != nil {
			return err
		}
		if !remapped {
			err = os.Chown(path, id, id)
		}
		if err := errors.Join(err, os.Chmod(path, fileMode)); err != nil {
			return err
		}
	}
	if !remapped {
		err = os.Chown(dir, id, id)
	}
	return errors.Join(err, os.Chmod(dir, dirMode))
}

// checkSecrets looks at what is really mounted in a container that runs.
func checkSecrets(got container.InspectResponse, dir string) error {
	if dir == "" {
		return nil
	}
	same, err := sameDirectory(got.State.Pid, got.ID, mesh.SecretsDir, dir)
	if errors.Is(err, errOtherProcess) {
		return nil // it has ended already
	}
	if err == nil && !same {
		err = mesh.Errorf(mesh.Unsupported, "the container engine mounted something other than the secrets of the workload").
			WithHint("peerd and the engine must see the same /run")
	}
	return err
}

// dropSecrets takes the secrets of a run off this machine, of which no container is left.
func (d *Driver) dropSecrets(ctx context.Context, run mesh.WorkloadID) error {
	if d.secrets == nil {
		return nil
	}
	err := d.eachSecretsDir(func(of mesh.WorkloadID, dir string) error {
		if of != run {
			return nil
		}
		return os.RemoveAll(dir)
	})
	if err != nil {
		return fmt.Errorf("cannot remove the secrets of a workload: %w", err)
	}
	if err := d.cli.VolumeRemove(ctx, secretsName(d.node, run), false); err != nil && !errdefs.IsNotFound(err) {
		return d.fail(err, "forget the place of secrets")
	}
	return nil
}

// sweepSecrets takes away the files that no run has which was adopted: what kill -9 left.
func (d *Driver) sweepSecrets(used map[string]bool) error {
	if d.secrets == nil {
		return nil
	}
	return d.eachSecretsDir(func(_ mesh.WorkloadID, dir string) error {
		if used[dir] {
			return nil
		}
		return os.RemoveAll(dir)
	})
}

func (d *Driver) eachSecretsDir(fn func(of mesh.WorkloadID, dir string) error) error {
	base, err := d.secretsBase()
	if err != nil {
		return nil // then there are none
	}
	if ownDir(base) != nil {
		return nil // it is not there, or nothing of ours
	}
	defer func() {
		d.secretsDir.Lock()
		defer d.secretsDir.Unlock()
		os.Remove(base) // unless something is left in it
	}()
	all, err := os.ReadDir(base)
	for _, e := range all {
		run, _, _ := strings.Cut(e.Name(), ".")
		err = errors.Join(err, fn(mesh.WorkloadID(run), filepath.Join(base, e.Name())))
	}
	return err
}

// adoptSecrets finds the files of a container that is to be adopted: they must be where
// its run's are.
func (d *Driver) adoptSecrets(ctx context.Context, got container.InspectResponse) (string, error) {
	if got.Config.Labels[labelSecrets] == "" || !got.State.Running {
		return "", nil
	}
	run := mesh.WorkloadID(got.Config.Labels[labelWorkload])
	v, err := d.cli.VolumeInspect(ctx, secretsName(d.node, run))
	if err != nil {
		return "", d.fail(err, "describe the place of secrets")
	}
	base, err := d.secretsBase()
	if err != nil {
		return "", err
	}
	dir := filepath.Clean(v.Options["device"])
	if filepath.Dir(dir) != base || !strings.HasPrefix(filepath.Base(dir), string(run)+".") {
		return "", mesh.Errorf(mesh.Denied, "the secrets of a workload are not where they belong")
	}
	return dir, checkSecrets(got, dir)
}

// wipeSecrets takes away the files of a run that has ended.
func (t *task) wipeSecrets() {
	if t.secrets == "" {
		return
	}
	if err := os.RemoveAll(t.secrets); err != nil {
		t.driver.log.Warn("cannot remove the secrets of a workload", "workload", t.id, "err", err)
	}
}
