package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"peercompute/pkg/mesh"
)

// mayMount says why this process cannot make a mount.
func mayMount() error {
	fd, err := unix.Fsopen("ext4", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// mkfs is the program that makes file systems. It may lie where only root's PATH leads.
func mkfs() (string, error) {
	const name = "mkfs.ext4"
	if p, err := exec.LookPath(name); err == nil && filepath.IsAbs(p) {
		return p, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return p, nil
		}
	}
	return "", mesh.Errorf(mesh.Unsupported, "%s is not installed, so there are no volumes here", name).WithHint("install e2fsprogs")
}

// format makes a file of so many bytes that holds an empty file system of owner's.
func (s *Store) format(ctx context.Context, file string, size int64, owner uint32) error {
	program, err := mkfs()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := setAside(f, size); err != nil {
		return err
	}
	// nodiscard, and nothing left for the kernel to zero later: both give back what was
	// just set aside.
	cmd := exec.CommandContext(ctx, program, "-q", "-F", "-t", "ext4", "-b", "4096", "-i", "8192", "-m", "0", "-e", "remount-ro",
		"-E", fmt.Sprintf("nodiscard,lazy_itable_init=0,lazy_journal_init=0,root_owner=%d:%d", owner, owner), file)
	cmd.Env = []string{"PATH=/usr/sbin:/sbin:/usr/bin:/bin", "LC_ALL=C"}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot make a file system: %w: %s", err, out[:min(len(out), 500)])
	}
	// It makes zeros by giving back all the same.
	if err := setAside(f, size); err != nil {
		return err
	}
	v, err := open(file, writable)
	if err != nil {
		return err
	}
	// Programs expect their directory to be empty, and nobody else's.
	err = errors.Join(v.root.Remove("lost+found"), v.root.Chmod(".", 0o700), v.Close())
	if err != nil {
		return fmt.Errorf("cannot prepare a file system: %w", err)
	}
	return f.Sync()
}

// setAside takes from the disk what a file does not have of its size yet.
func setAside(f *os.File, size int64) error {
	switch err := unix.Fallocate(int(f.Fd()), 0, 0, size); {
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG):
		return mesh.Errorf(mesh.Overloaded, "this machine's disk has no room for a volume of %d MiB", size>>20).WithRule(mesh.RuleDisk).Because(err)
	case err != nil:
		return mesh.Errorf(mesh.Unsupported, "the file system of peerd's home cannot set space aside, so there are no volumes here").Because(err)
	}
	return nil
}

// access says what a mount is for.
type access int

const (
	readOnly access = iota
	writable
)

// tree is the file system of a volume. No path leads to it, so nobody else can be in
// it, and when this process ends it is gone.
type tree struct {
	root  *os.Root
	mount int
	dev   *Device
}

func open(file string, a access) (*tree, error) {
	dev, err := attach(file)
	if err != nil {
		return nil, err
	}
	t := &tree{dev: dev, mount: -1}
	if t.mount, err = mountDetached(dev.Path, a); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot mount a volume: %w", err), dev.Close())
	}
	if t.root, err = os.OpenRoot("/proc/self/fd/" + strconv.Itoa(t.mount)); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

func mountDetached(device string, a access) (int, error) {
	fs, err := unix.Fsopen("ext4", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "source", device); err != nil {
		return -1, err
	}
	attrs := unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	if a == readOnly {
		attrs |= unix.MOUNT_ATTR_RDONLY
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
}

// flush writes to disk what was written to the tree.
func (t *tree) flush() error {
	d, err := t.root.Open(".") // the mount itself cannot be asked
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}

func (t *tree) Close() error {
	var errs []error
	if t.root != nil {
		errs = append(errs, t.root.Close())
	}
	if t.mount >= 0 {
		errs = append(errs, unix.Close(t.mount))
	}
	return errors.Join(append(errs, t.dev.Close())...)
}
