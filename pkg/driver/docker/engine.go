package docker

import (
	"context"
	"runtime"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/api/types/versions"

	"peercompute/pkg/mesh"
)

// oldestAPI is that of Docker 20.10, the first with private cgroup namespaces.
const oldestAPI = "1.41"

// engine is what we know of the engine.
type engine struct {
	version string
	arch    string // as GOARCH has it
	runtime string // the default runtime
	cpus    int
	remaps  bool // it maps container users to others of the host
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
		cpus: info.NCPU, remaps: hasOption("name=userns"),
	}, nil
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
