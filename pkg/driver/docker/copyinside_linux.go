package docker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"peercompute/pkg/archive"
	"peercompute/pkg/mesh"
)

// This file is the process that copies: one order, as the container's user.

// Its descriptors, besides those for the archive.
const (
	rootFD   = 3 // the container's root directory
	orderFD  = 4 // the order; its end is peerd's end
	answerFD = 5
)

// maxCopyIn bounds one archive. How much room there is the file systems know.
const maxCopyIn = 1 << 40

// CopyMain carries out one order of a Driver. It is what Config.Copier runs.
func CopyMain(ctx context.Context) error {
	orders, answers := os.NewFile(orderFD, "order"), os.NewFile(answerFD, "answer")
	in := bufio.NewReader(orders)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("no order: %w", err)
	}
	var o copyOrder
	if err := json.Unmarshal(line, &o); err != nil {
		return fmt.Errorf("cannot read the order: %w", err)
	}
	if err := become(o.UID, o.GID); err != nil {
		return err
	}
	go func() { // becoming another user has undone what ties a child to its parent
		_, _ = in.ReadByte()
		os.Exit(1)
	}()
	var a copyAnswer
	if o.To != nil {
		a.Report, err = copyIn(ctx, rootFD, o, os.Stdin)
	} else {
		a.Report, err = copyOut(ctx, rootFD, o.Path, os.Stdout)
	}
	if err != nil {
		e := copyError(err)
		a.Kind, a.Msg = e.Kind, e.Msg
	}
	return json.NewEncoder(answers).Encode(a)
}

// become gives up all that root may do, for good.
func become(uid, gid int) error {
	if uid <= 0 || gid <= 0 {
		return errors.New("not as root")
	}
	unix.Umask(0) // the archive says what each may
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return err
	}
	if err := syscall.Setgroups(nil); err != nil {
		return err
	}
	if err := syscall.Setresgid(gid, gid, gid); err != nil {
		return err
	}
	if err := syscall.Setresuid(uid, uid, uid); err != nil {
		return err
	}
	if err := syscall.Setuid(0); err == nil || syscall.Getuid() != uid || syscall.Getegid() != gid {
		return errors.New("did not become the container's user")
	}
	if err := filterSyscalls(); err != nil {
		return fmt.Errorf("cannot install the system call filter: %w", err)
	}
	return nil
}

// reopen is the file that a descriptor names, as something to read.
func reopen(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

func copyOut(ctx context.Context, root int, from string, w io.Writer) (archive.Report, error) {
	fd, err := openAt(root, from, unix.O_PATH, 0)
	if err != nil {
		return archive.Report{}, &fs.PathError{Op: "open", Path: from, Err: err}
	}
	defer unix.Close(fd)
	if err := realFiles(fd); err != nil {
		return archive.Report{}, &fs.PathError{Op: "open", Path: from, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return archive.Report{}, err
	}
	p := archive.Pack{As: archive.Base(from), Enter: func(d *os.File) error { return realFiles(int(d.Fd())) }}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		dir, err := os.OpenRoot(reopen(fd))
		if err != nil {
			return archive.Report{}, &fs.PathError{Op: "open", Path: from, Err: causeOf(err)}
		}
		defer dir.Close()
		return p.Dir(ctx, w, dir)
	case unix.S_IFREG:
		f, err := os.Open(reopen(fd))
		if err != nil {
			return archive.Report{}, &fs.PathError{Op: "open", Path: from, Err: causeOf(err)}
		}
		defer f.Close()
		return p.File(ctx, w, f)
	}
	return archive.Report{}, mesh.Errorf(mesh.Invalid, "%.200s is neither a file nor a directory", from)
}

func copyIn(ctx context.Context, root int, o copyOrder, r io.Reader) (archive.Report, error) {
	stat := func(p string) (fs.FileInfo, error) {
		fd, err := openAt(root, p, unix.O_PATH, 0)
		if err != nil {
			return nil, &fs.PathError{Op: "stat", Path: p, Err: err}
		}
		f := os.NewFile(uintptr(fd), p)
		defer f.Close()
		return f.Stat()
	}
	dir, as := o.To.Path, ""
	if o.To.Tree {
		var err error
		if dir, as, err = archive.Place(o.To.Path, stat); err != nil {
			return archive.Report{}, err
		}
	}
	fd, err := openAt(root, dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return archive.Report{}, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	if err := realFiles(fd); err != nil {
		return archive.Report{}, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	to, err := os.OpenRoot(reopen(fd))
	if err != nil {
		return archive.Report{}, &fs.PathError{Op: "open", Path: path.Clean(dir), Err: causeOf(err)}
	}
	defer to.Close()
	return archive.Unpack{As: as, Links: archive.LinksAny, MaxBytes: maxCopyIn}.Into(ctx, to, r)
}

func causeOf(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

var errKernel = errors.New("these are no files, but the kernel's")

// realFiles refuses the file systems that are the kernel's interfaces.
func realFiles(fd int) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return err
	}
	switch int64(st.Type) {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEVPTS_SUPER_MAGIC, mqueueMagic:
		return errKernel
	}
	return nil
}

const mqueueMagic = 0x19800202

// copyError is what is told of an error: by the cause, in words that name the
// container's paths only.
func copyError(err error) *mesh.Error {
	var ours *mesh.Error
	switch {
	case errors.As(err, &ours):
		return ours
	case errors.Is(err, unix.EROFS):
		return mesh.Errorf(mesh.Denied, "%s: a container's own files are read-only", clip(err.Error(), 400))
	case errors.Is(err, fs.ErrPermission):
		return mesh.Errorf(mesh.Denied, "%s to the workload's user", clip(err.Error(), 400))
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, archive.ErrTooLarge):
		return mesh.Errorf(mesh.Quota, "%s: it does not fit within the workload's disk", clip(err.Error(), 400))
	case errors.Is(err, fs.ErrNotExist):
		return mesh.Errorf(mesh.NotFound, "%s", clip(err.Error(), 400))
	}
	return mesh.Errorf(mesh.Invalid, "%s", clip(err.Error(), 400))
}
