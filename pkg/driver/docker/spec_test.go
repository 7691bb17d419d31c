package docker

import (
	"fmt"
	"net/netip"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"pgregory.net/rapid"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
	"peercompute/seccomp"
)

const testNode = mesh.PeerID("\x00\x24\x08\x01\x12\x20abcdefghijklmnopqrstuvwxyz012345")

// anyWorkload draws workloads as hostile as the types allow: admission and
// Validate are not in the way here.
func anyWorkload() *rapid.Generator[mesh.Workload] {
	return rapid.Custom(func(t *rapid.T) mesh.Workload {
		text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{
			"", "host", "container:x", "/", "/var/run/docker.sock:/s", "--privileged", "seccomp=unconfined", "0", "root", "../..",
		}))
		upTo := func(most int64) *rapid.Generator[int64] { // mostly sound, or no workload is ever built
			sound := rapid.Int64Range(0, most)
			return rapid.OneOf(sound, sound, sound, sound, sound, sound, rapid.Int64(), rapid.SampledFrom([]int64{0, 1, -1, 1 << 62}))
		}
		return mesh.Workload{
			ID:    mesh.WorkloadID(text.Draw(t, "id")),
			Owner: mesh.PeerID(text.Draw(t, "owner")),
			Spec: mesh.Spec{
				Name: text.Draw(t, "name"), Runtime: mesh.Runtime(rapid.SampledFrom([]string{"container", "container", "container", "container", "container", "wasm", ""}).Draw(t, "runtime")),
				Shape: mesh.Shape(text.Draw(t, "shape")), Image: text.Draw(t, "image"), Digest: text.Draw(t, "digest"),
				Args: rapid.SliceOf(text).Draw(t, "args"), Env: rapid.SliceOf(text).Draw(t, "env"), Port: rapid.Uint16().Draw(t, "port"),
				Resources: mesh.Resources{
					MilliCPU: upTo(maxMilliCPU).Draw(t, "cpu"), Memory: upTo(1<<40).Draw(t, "memory"), Disk: upTo(1<<40).Draw(t, "disk"), PIDs: upTo(1<<20).Draw(t, "pids"),
				},
				Egress:  mesh.Egress(rapid.SampledFrom([]string{"", "none", "none", "internet", "allow", "host"}).Draw(t, "egress")),
				Hosts:   rapid.SliceOfN(text, 0, 2).Draw(t, "hosts"),
				Network: rapid.OneOf(rapid.Just(""), rapid.Just(""), text).Draw(t, "network"),
				Restart: mesh.Restart(text.Draw(t, "restart")),
				Tmpfs:   rapid.SliceOfN(rapid.OneOf(rapid.SampledFrom([]string{"/run", "/tmp", "/var/lib/x"}), rapid.SampledFrom([]string{"/run", "/", "/proc", "/dev/shm", "/a,exec", "../x"})), 0, 2).Draw(t, "tmpfs"),
				Volumes: rapid.SliceOfN(anyMount(), 0, 2).Draw(t, "mounts"),

				Entrypoint: rapid.SliceOfN(text, 0, 2).Draw(t, "entrypoint"), WorkDir: text.Draw(t, "workdir"),
				Aliases:  rapid.SliceOfN(rapid.OneOf(rapid.SampledFrom([]string{"db", "my_db"}), rapid.SampledFrom([]string{"db", "x:1.2.3.4", "a\nb", "localhost"})), 0, 2).Draw(t, "aliases"),
				Networks: rapid.SliceOfN(text, 0, 1).Draw(t, "networks"),
			},
		}
	})
}

// anyMount draws a volume, mostly a sound one.
func anyMount() *rapid.Generator[mesh.VolumeMount] {
	return rapid.Custom(func(t *rapid.T) mesh.VolumeMount {
		name := rapid.OneOf(rapid.SampledFrom([]string{"data", "db"}), rapid.SampledFrom([]string{"data", "db", "/", "../x", "/var/run/docker.sock", ""}))
		target := rapid.OneOf(rapid.SampledFrom([]string{"/data", "/srv/x", "/tmp"}), rapid.SampledFrom([]string{"/data", "/", "/proc/x", "/dev", "/sys/fs", "/etc/x", "x", "/a/../proc", "/a:b", ""}))
		return mesh.VolumeMount{Name: name.Draw(t, "volume"), Target: target.Draw(t, "target"), ReadOnly: rapid.Bool().Draw(t, "ro"), Size: rapid.SampledFrom([]int64{0, 0, 1 << 30, -1}).Draw(t, "size")}
	})
}

// theirs is what an owner has of the volumes that a spec names, or something else.
func theirs(t *rapid.T, s mesh.Spec) (out []driver.Volume) {
	for i, m := range s.Volumes {
		v := driver.Volume{ID: mesh.VolumeID(strings.Repeat(string(rune('a'+i)), 16)), Name: m.Name, Size: 1 << 30, User: 1234567}
		switch rapid.SampledFrom([]int{0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}).Draw(t, "have") {
		case 1:
			v.ID = mesh.VolumeID(rapid.SampledFrom([]string{"", "/", "../../etc", "x"}).Draw(t, "id"))
		case 2:
			v.Name = "another"
		case 3:
			v.User = 0
		case 4:
			continue
		}
		out = append(out, v)
	}
	return out
}

func TestNoSpecLeavesTheContainer(t *testing.T) {
	built, withVolumes := 0, 0
	for built < 1000 || withVolumes < 100 { // of the others the refusal is safe
		rapid.Check(t, func(t *rapid.T) {
			w := anyWorkload().Draw(t, "workload")
			volumes := rapid.SliceOfN(rapid.OneOf(rapid.SampledFrom([]string{"/data", "/tmp", "/var/lib/x"}), rapid.SampledFrom([]string{"/data", "/srv", "/", "/proc", "/sys/fs", "/dev/shm", "/a,exec", "x"})), 0, 2).Draw(t, "volumes")
			img := image{id: "sha256:" + strings.Repeat("a", 64), volumes: volumes}
			sandbox := ""
			if connects(w.Spec) {
				sandbox = rapid.OneOf(rapid.SampledFrom([]string{someID, someID, someID, "host", ""}), rapid.String()).Draw(t, "sandbox")
				if s, err := buildSandbox(testNode, w, img, "1234567", netip.MustParseAddr("198.19.0.1")); err == nil {
					if escape := escapes(s, ""); escape != "" {
						t.Fatalf("the sandbox: %s: %+v", escape, s.host)
					}
				}
			}
			have := theirs(t, w.Spec)
			b, err := build(testNode, w, img, userWith(w.ID, engine{remaps: rapid.Bool().Draw(t, "remaps")}, have), sandbox, have)
			if err != nil {
				return
			}
			built++
			if escape := escapes(b, sandbox); escape != "" {
				t.Fatalf("%s: %+v", escape, b.host)
			}
			if escape := mountsMore(b, w, have); escape != "" {
				t.Fatalf("%s: %+v", escape, b.host.Mounts)
			}
			withVolumes += len(b.host.Mounts)
		})
	}
}

// mountsMore names the first mount that is not a volume of the owner's at the place
// that the spec gives it.
func mountsMore(b blueprint, w mesh.Workload, have []driver.Volume) string {
	if len(b.host.Mounts) != len(w.Spec.Volumes) || len(have) != len(w.Spec.Volumes) {
		return "another number of mounts"
	}
	for i, m := range b.host.Mounts {
		want := mount.Mount{
			Type: mount.TypeVolume, Source: "peercompute-" + string(w.ID) + "-" + testNode.String()[len(testNode.String())-8:] + "-" + string(have[i].ID),
			Target: w.Spec.Volumes[i].Target, ReadOnly: w.Spec.Volumes[i].ReadOnly, VolumeOptions: &mount.VolumeOptions{NoCopy: true},
		}
		if !reflect.DeepEqual(m, want) || have[i].Name != w.Spec.Volumes[i].Name {
			return "mount " + m.Source
		}
		if _, err := mesh.ParseVolumeID(string(have[i].ID)); err != nil {
			return "the volume " + m.Source
		}
		for _, taken := range []string{"/proc", "/sys", "/dev", "/etc"} {
			if m.Target == "/" || under(m.Target, taken) || path.Clean(m.Target) != m.Target || !path.IsAbs(m.Target) {
				return "a volume at " + m.Target
			}
		}
		if _, also := b.host.Tmpfs[m.Target]; also {
			return "two mounts at " + m.Target
		}
		for dir := range b.host.Tmpfs {
			if under(dir, m.Target) {
				return "scratch inside of a volume"
			}
		}
	}
	return ""
}

var ownHost = regexp.MustCompile(`^[a-z0-9_-]+:127\.0\.0\.1$`)

var someID = strings.Repeat("ab", 32)

// escapes names the first way in which b is more than a closed box, or one in the
// sandbox of this ID.
func escapes(b blueprint, sandbox string) string {
	h, c := b.host, b.config
	network, sysctls := container.NetworkMode("none"), 1
	if sandbox != "" {
		network, sysctls = container.NetworkMode("container:"+someID), 0
	}
	for what, bad := range map[string]bool{
		"privileged":       h.Privileged,
		"capabilities":     len(h.CapAdd) > 0 || !slices.Equal(h.CapDrop, []string{"ALL"}),
		"host path":        len(h.Binds) > 0 || len(h.VolumesFrom) > 0 || len(c.Volumes) > 0 || h.VolumeDriver != "",
		"device":           len(h.Devices) > 0 || len(h.DeviceRequests) > 0 || len(h.DeviceCgroupRules) > 0,
		"host namespace":   h.NetworkMode != network || h.PidMode != "" || h.UTSMode != "" || h.UsernsMode != "" || h.IpcMode != "private" || h.CgroupnsMode != "private",
		"published port":   len(h.PortBindings) > 0 || h.PublishAllPorts || len(c.ExposedPorts) > 0,
		"links":            len(h.Links) > 0,
		"writable root":    !h.ReadonlyRootfs,
		"security options": !slices.Equal(h.SecurityOpt, []string{"no-new-privileges", "seccomp=" + seccomp.Profile()}),
		"root":             !numericUser(c.User) || len(h.GroupAdd) > 0,
		"restart":          h.RestartPolicy.Name != container.RestartPolicyDisabled,
		"cgroup":           h.CgroupParent != "" || h.Cgroup != "",
		"runtime":          h.Runtime != "",
		"health check":     c.Healthcheck == nil || !slices.Equal(c.Healthcheck.Test, []string{"NONE"}),
		"memory":           h.Memory <= 0 || h.MemorySwap != h.Memory || h.OomKillDisable != nil,
		"processor":        h.NanoCPUs <= 0 || h.CPUShares < 2 || h.CPUShares > 1<<18,
		"processes":        h.PidsLimit == nil || *h.PidsLimit <= 0,
		"shared memory":    h.ShmSize <= 0 || h.ShmSize > maxShm,
		"log":              h.LogConfig.Type != "json-file" || h.LogConfig.Config["max-size"] == "" || h.LogConfig.Config["max-file"] == "",
		"image":            c.Image != "sha256:"+strings.Repeat("a", 64),
		"terminal":         c.Tty || c.OpenStdin || c.AttachStdin,
		"sysctl":           len(h.Sysctls) != sysctls,
		"hosts":            len(h.ExtraHosts) > 1 && slices.ContainsFunc(h.ExtraHosts[1:], func(e string) bool { return !ownHost.MatchString(e) }),
	} {
		if bad {
			return what
		}
	}
	for dir, o := range h.Tmpfs {
		opts := strings.Split(o, ",")
		for _, must := range []string{"noexec", "nosuid", "nodev", "mode=0700"} {
			if !slices.Contains(opts, must) {
				return dir + " lacks " + must
			}
		}
		if !slices.ContainsFunc(opts, func(o string) bool { return strings.HasPrefix(o, "size=") && o != "size=0" }) {
			return dir + " without a bound"
		}
		if !slices.ContainsFunc(opts, func(o string) bool { return strings.HasPrefix(o, "nr_inodes=") && o != "nr_inodes=0" }) {
			return dir + " with any number of files"
		}
		if dir == "/" || under(dir, "/proc") || under(dir, "/sys") || under(dir, "/dev") && dir != shmDir {
			return "tmpfs over " + dir
		}
	}
	return ""
}

func TestScratchSharesTheDisk(t *testing.T) {
	got, err := scratchOf([]string{"/data", "/data/", "/var/lib/x"}, 30<<20, "1234")
	if err != nil {
		t.Fatal(err)
	}
	want := "rw,noexec,nosuid,nodev,size=10485760,nr_inodes=2560,mode=0700,uid=1234,gid=1234"
	shm := strings.Replace(strings.Replace(want, "10485760", "31457280", 1), "2560", "7680", 1)
	if len(got) != 4 || got[shmDir] != shm || got["/tmp"] != want || got["/data"] != want || got["/var/lib/x"] != want {
		t.Errorf("got %v", got)
	}
	for _, bad := range []string{"/", "data", "/proc/x", "/sys", "/dev/shm", "/a:b", "/a,exec", "/x/../proc"} {
		if got, err := scratchOf([]string{bad}, 1<<20, "1"); mesh.KindOf(errOr(err)) != mesh.Invalid {
			t.Errorf("volume %q: got %v, %v", bad, got, err)
		}
	}
	var many []string
	for i := range maxVolumes {
		many = append(many, fmt.Sprintf("/v%d", i))
	}
	if _, err := scratchOf(many, 1<<30, "1"); err == nil {
		t.Error("any number of volumes")
	}
}

// What is counted of the processors is what a container gets of them when they are short.
func TestWeightIsWhatIsCounted(t *testing.T) {
	for _, c := range []struct {
		r    mesh.Resources
		want int64
	}{
		{mesh.Resources{MilliCPU: 1000, SharedCPU: true}, 102},
		{mesh.Resources{MilliCPU: 1000}, 1024},
		{mesh.Resources{MilliCPU: 2500}, 2560},
		{mesh.Resources{MilliCPU: 1}, 2},
		{mesh.Resources{MilliCPU: maxMilliCPU}, 1 << 18},
	} {
		if got := weight(c.r); got != c.want {
			t.Errorf("%+v: got %d, want %d", c.r, got, c.want)
		}
	}
}

// errOr makes nil an error that is of no kind a test asks for.
func errOr(err error) error {
	if err == nil {
		return mesh.Errorf(mesh.Conflict, "no error")
	}
	return err
}

func TestUsersAreApart(t *testing.T) {
	a, b := userOf("aaaaaaaaaaaaaaaa", false), userOf("bbbbbbbbbbbbbbbb", false)
	if a == b || !numericUser(a+":"+a) || userOf("aaaaaaaaaaaaaaaa", false) != a {
		t.Errorf("got %s and %s", a, b)
	}
	if got := userOf("aaaaaaaaaaaaaaaa", true); got != "65532" {
		t.Errorf("on an engine that maps users: got %s", got)
	}
	for _, u := range []string{"", "0:0", "root", "1:2", "1", "01:01", "x:x"} {
		if numericUser(u) {
			t.Errorf("%q passes for a number above zero", u)
		}
	}
}
