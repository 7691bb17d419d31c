package docker

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/docker/docker/api/types/container"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
	"peercompute/seccomp"
)

// Constants of every container.
const (
	openFiles    = 16384 // descriptors a process may hold; an engine may have few itself
	shmDir       = "/dev/shm"
	maxShm       = 64 << 20  // bytes of it, at most; they count as memory too
	logSize      = "8m"      // one log file; two are kept
	logFiles     = "2"       //
	oomScore     = 500       // when the machine runs out of memory, workloads go before services
	maxVolumes   = 16        // writable directories
	maxMilliCPU  = 1_000_000 // a thousand cores: more is a mistake
	bytesPerNode = 4096      // one inode of scratch for so many bytes
	minInodes    = 1024
	minWeight    = 2       // of processor time, that the kernel takes
	maxWeight    = 1 << 18 //
)

// image is what a container is made from.
type image struct {
	id      string   // "sha256:…", the engine's name for it
	volumes []string // directories it declares as volumes
}

// blueprint is a container as the engine is asked to make it.
type blueprint struct {
	name   string
	config *container.Config
	host   *container.HostConfig
}

// build makes the blueprint of w from constants, w and the image. It is the only
// place where a container is described, and it has no access to anything else.
//
// sandbox is the ID of the container whose network it joins, and empty for a workload
// without a network. volumes are those that its spec names, in that order.
func build(node mesh.PeerID, w mesh.Workload, img image, user, sandbox string, volumes []driver.Volume) (blueprint, error) {
	s := w.Spec.WithDefaults()
	r := s.Resources
	if s.Runtime != mesh.Container {
		return blueprint{}, mesh.Errorf(mesh.Invalid, "a %s workload is not a container", s.Runtime)
	}
	if connects(s) != (sandbox != "") || sandbox != "" && !mesh.ValidDigest("sha256:"+sandbox) {
		return blueprint{}, mesh.Errorf(mesh.Internal, "a workload has a sandbox if and only if it has a network")
	}
	// A zero or negative bound means none at all to the engine.
	if r.Memory <= 0 || r.PIDs <= 0 || r.Disk <= 0 || r.MilliCPU <= 0 || r.MilliCPU > maxMilliCPU {
		return blueprint{}, mesh.Errorf(mesh.Invalid, "a container needs bounds above zero for memory, processes, disk and CPU (at most %d cores)", maxMilliCPU/1000)
	}
	mounts, err := mountsOf(node, w, volumes)
	if err != nil {
		return blueprint{}, err
	}
	scratch, err := scratchOf(slices.Concat(img.volumes, s.Tmpfs), r.Disk, user)
	if err != nil {
		return blueprint{}, err
	}
	for _, m := range mounts {
		delete(scratch, m.Target)
		for dir := range scratch {
			if under(dir, m.Target) {
				return blueprint{}, mesh.Errorf(mesh.Invalid, "the directory %q, which the image declares as a volume or the spec as scratch, lies below the volume at %s", clip(dir, 80), m.Target).
					WithHint("mount the volume at %s itself: --volume NAME:%s", dir, dir)
			}
		}
	}
	hostname := s.Name
	if !mesh.ValidLabel(hostname) {
		hostname = string(w.ID)
	}
	no := false
	c := &container.Config{
		Image:       img.id,
		User:        user + ":" + user,
		Hostname:    hostname,
		Env:         s.Env,
		Entrypoint:  s.Entrypoint, // empty: the image's own
		Cmd:         s.Args,       // also, unless there is an entry point
		WorkingDir:  s.WorkDir,
		Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
		Labels: map[string]string{
			labelNode: node.String(), labelWorkload: string(w.ID), labelOwner: w.Owner.String(),
			labelName: s.Name, labelPort: strconv.Itoa(int(s.Port)), labelCPU: strconv.FormatInt(r.MilliCPU*1_000_000, 10),
		},
	}
	h := &container.HostConfig{
		NetworkMode:    "none",
		IpcMode:        container.IPCModePrivate,
		CgroupnsMode:   container.CgroupnsModePrivate,
		CapDrop:        []string{"ALL"},
		SecurityOpt:    []string{"no-new-privileges", "seccomp=" + seccomp.Profile()},
		ReadonlyRootfs: true,
		Tmpfs:          scratch,
		Mounts:         mounts,
		ShmSize:        min(r.Disk, maxShm),
		MaskedPaths:    maskedPaths(),
		ReadonlyPaths:  readonlyPaths(),
		Sysctls:        map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"}, // port 80 without a capability
		DNS:            []string{"127.0.0.1"},                                         // or the engine would copy the host's
		DNSSearch:      []string{"."},
		ExtraHosts:     []string{hostname + ":127.0.0.1"},
		RestartPolicy:  container.RestartPolicy{Name: container.RestartPolicyDisabled},
		OomScoreAdj:    oomScore,
		Init:           &no, // it would be mounted from the host
		LogConfig: container.LogConfig{
			Type:   "json-file",
			Config: map[string]string{"max-size": logSize, "max-file": logFiles},
		},
		Resources: container.Resources{
			Memory:     r.Memory,
			MemorySwap: r.Memory, // memory and swap together: no swap
			NanoCPUs:   r.MilliCPU * 1_000_000,
			CPUShares:  weight(r),
			PidsLimit:  &r.PIDs,
			Ulimits: []*container.Ulimit{
				{Name: "core", Soft: 0, Hard: 0},
				{Name: "nofile", Soft: openFiles, Hard: openFiles},
			},
		},
	}
	for _, a := range s.Aliases {
		if !mesh.ValidAlias(a) {
			return blueprint{}, mesh.Errorf(mesh.Invalid, "%q cannot be a name", clip(a, 80))
		}
		h.ExtraHosts = append(h.ExtraHosts, a+":127.0.0.1")
	}
	if len(volumes) > 0 {
		c.Labels[labelVolumes] = volumeIDs(volumes)
	}
	if sandbox != "" { // which has these already
		h.NetworkMode = container.NetworkMode(sandboxPrefix + sandbox)
		c.Hostname, h.DNS, h.DNSSearch, h.ExtraHosts, h.Sysctls = "", nil, nil, nil, nil
	}
	return blueprint{name: containerName(node, w.ID), config: c, host: h}, nil
}

// weight is the part of the processors that a container gets while others want them
// too: as much as is counted for it, so that work which asked for cores has them
// beside work that takes what is to spare. 1024 is the engine's default.
func weight(r mesh.Resources) int64 {
	return min(max(r.CountedCPU()*1024/1000, minWeight), maxWeight)
}

// scratchOf is the writable file systems: /tmp, /dev/shm, and one for each directory that
// the image declares as a volume, or the spec as writable. Left alone, the engine would
// put the former on the host's disk, without a bound. These and /tmp share disk bytes evenly.
func scratchOf(volumes []string, disk int64, user string) (map[string]string, error) {
	dirs := []string{"/tmp"}
	for _, v := range volumes {
		v, err := mesh.ScratchDir(v)
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, v)
	}
	slices.Sort(dirs)
	dirs = slices.Compact(dirs)
	if len(dirs) > maxVolumes {
		return nil, mesh.Errorf(mesh.Invalid, "the image's volumes and the spec's are more than %d writable directories", maxVolumes-1)
	}
	out := make(map[string]string, len(dirs))
	for _, dir := range dirs {
		out[dir] = inMemory(disk/int64(len(dirs)), user)
	}
	// Shared memory is no scratch. Left alone, the engine would bound its bytes but not
	// its files.
	out[shmDir] = inMemory(min(disk, maxShm), user)
	return out, nil
}

// inMemory is how a file system for the user alone is mounted, with bounds: 0 would be none.
func inMemory(size int64, user string) string {
	size = max(size, 4096)
	return fmt.Sprintf("rw,noexec,nosuid,nodev,size=%d,nr_inodes=%d,mode=0700,uid=%s,gid=%s",
		size, max(size/bytesPerNode, minInodes), user, user)
}

// maskedPaths are the paths that show nothing: what tells of the host or steers
// it. Newer engines mask the same; naming them makes all engines equal.
func maskedPaths() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kallsyms", "/proc/kcore", "/proc/keys", "/proc/key-users",
		"/proc/kmsg", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware", "/sys/kernel/debug", "/sys/kernel/security", "/sys/kernel/tracing",
	}
}

// readonlyPaths are the parts of /proc that are writable to some.
func readonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}
