package docker

import (
	"context"
	"maps"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/api/types/versions"

	"peercompute/pkg/mesh"
)

// oldestAPI is that of Docker 20.10, the first with private cgroup namespaces.
const oldestAPI = "1.41"

// engine is what we know of the engine.
type engine struct {
	version  string
	arch     string // as GOARCH has it
	runtime  string // the default runtime
	cpus     int
	pins     bool // it can say which cores a container runs on
	remaps   bool // it maps container users to others of the host
	secludes bool // the runtime of workloads keeps their network to itself
	// sandboxes: the runtime runs programs on a kernel of its own (gVisor)
	sandboxes bool
	userBase  uint32 // with remaps: who user 0 is outside; 0 = not told
	runc      string // the version
	risks     string // known holes of these versions; "" = none
}

// knowEngine returns what is known of the engine and asks if that is nothing.
func (d *Driver) knowEngine(ctx context.Context) (engine, error) {
	d.mu.Lock()
	known := d.engine
	d.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	return d.askEngine(ctx)
}

// askEngine asks the engine what it is and refuses one that cannot confine.
func (d *Driver) askEngine(ctx context.Context) (engine, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	info, err := d.cli.Info(ctx)
	if err != nil {
		return engine{}, d.fail(err, "describe itself")
	}
	e, err := judge(info, d.cli.ClientVersion())
	if err != nil {
		return engine{}, err
	}
	if e.secludes, err = judgeRuntime(info, d.runtime); err != nil {
		return engine{}, err
	}
	e.sandboxes = sandboxes(info, d.runtime)
	v, err := d.cli.ServerVersion(ctx)
	if err != nil {
		return engine{}, d.fail(err, "tell its version")
	}
	parts := map[string]string{"Engine": v.Version}
	for _, c := range v.Components {
		parts[c.Name] = c.Version
	}
	e.runc, e.risks = parts["runc"], risks(parts)
	d.mu.Lock()
	d.engine = &e
	d.mu.Unlock()
	return e, nil
}

// judge reads the engine's description of itself. api is the version that both
// sides speak.
func judge(info system.Info, api string) (engine, error) {
	hasOption := func(name string) bool {
		return slices.ContainsFunc(info.SecurityOptions, func(o string) bool {
			return o == name || strings.HasPrefix(o, name+",")
		})
	}
	if info.OSType != "linux" {
		return engine{}, mesh.Errorf(mesh.Unsupported, "the container engine runs %s containers, not Linux ones", info.OSType)
	}
	if versions.LessThan(api, oldestAPI) {
		return engine{}, mesh.Errorf(mesh.Unsupported, "the container engine %s is too old", info.ServerVersion).
			WithHint("Docker 20.10 is the oldest that will do")
	}
	if !hasOption("name=seccomp") {
		return engine{}, mesh.Errorf(mesh.Unsupported, "the container engine cannot filter system calls").
			WithHint("workloads run only where the kernel and the engine have seccomp; see: docker info")
	}
	var unbounded []string
	for _, bound := range []struct {
		what string
		can  bool
	}{{"memory", info.MemoryLimit}, {"swap", info.SwapLimit}, {"processor time", info.CPUCfsQuota}, {"processes", info.PidsLimit}} {
		if !bound.can {
			unbounded = append(unbounded, bound.what)
		}
	}
	if len(unbounded) > 0 {
		return engine{}, mesh.Errorf(mesh.Unsupported, "the container engine cannot bound %s", strings.Join(unbounded, ", ")).
			WithHint("use control groups 2, or boot Linux with: cgroup_enable=memory swapaccount=1")
	}
	return engine{
		version: info.ServerVersion, arch: goArch(info.Architecture), runtime: info.DefaultRuntime,
		cpus: info.NCPU, pins: info.CPUSet, remaps: hasOption("name=userns"), userBase: userBase(info.DockerRootDir),
	}, nil
}

// judgeRuntime looks for the runtime that this machine's owner chose; "" is the
// engine's default. secludes reports whether it keeps the network of its containers to
// itself, as gVisor does unless it is told otherwise: then the addresses in a
// container's namespace are not the container's.
func judgeRuntime(info system.Info, chosen string) (secludes bool, err error) {
	if chosen == "" {
		chosen = info.DefaultRuntime
	}
	r, ok := info.Runtimes[chosen]
	if !ok && chosen != info.DefaultRuntime {
		return false, mesh.Errorf(mesh.Unsupported, "the container engine has no runtime %q, only %s", clip(chosen, 40), strings.Join(slices.Sorted(maps.Keys(info.Runtimes)), ", ")).
			WithHint("register it under \"runtimes\" in the engine's daemon.json, or start peerd without --runtime")
	}
	if !sandboxes(info, chosen) {
		return false, nil
	}
	args := strings.Join(r.Args, " ")
	return !strings.Contains(args, "-network=host") && !strings.Contains(args, "-network host"), nil
}

// sandboxes reports whether a runtime is gVisor's; "" is the engine's default.
func sandboxes(info system.Info, runtime string) bool {
	if runtime == "" {
		runtime = info.DefaultRuntime
	}
	return strings.HasPrefix(path.Base(info.Runtimes[runtime].Path), "runsc") || strings.HasPrefix(runtime, "runsc")
}

// userBase reads from the directory of an engine that maps users who its user 0 is
// outside: it ends in two numbers, of user and group.
func userBase(root string) uint32 {
	user, _, ok := strings.Cut(path.Base(root), ".")
	n, err := strconv.ParseUint(user, 10, 32)
	if !ok || err != nil {
		return 0
	}
	return uint32(n)
}

// goArch turns the kernel's name of an architecture into Go's, which images use.
func goArch(kernel string) string {
	switch kernel {
	case "x86_64":
		return "amd64"
	case "aarch64":
		return "arm64"
	case "":
		return runtime.GOARCH
	}
	return kernel
}
