package docker

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/system"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

var testEngine = engine{runtime: "runc", arch: "amd64", cpus: 2}

// made is a blueprint and the container that an honest engine makes of it.
func made(t *testing.T) (blueprint, container.InspectResponse) {
	t.Helper()
	w := mesh.Workload{ID: "aaaaaaaaaaaaaaaa", Spec: mesh.Spec{
		Name: "web", Runtime: mesh.Container, Image: "x", Args: []string{"serve"}, Env: []string{"A=b"}, Port: 80, Entrypoint: []string{"/run"}, WorkDir: "/srv",
		Volumes: []mesh.VolumeMount{{Name: "data", Target: "/data"}, {Name: "conf", Target: "/conf", ReadOnly: true}},
	}}
	volumes := []driver.Volume{{ID: "bbbbbbbbbbbbbbbb", Name: "data", Size: 1 << 30, User: 1234567}, {ID: "cccccccccccccccc", Name: "conf", Size: 1 << 30, User: 1234567}}
	want, err := build(testNode, w, image{id: "sha256:" + strings.Repeat("a", 64)}, "1234567", "", volumes)
	if err != nil {
		t.Fatal(err)
	}
	var host container.HostConfig
	var config container.Config
	recode(t, want.host, &host)
	recode(t, want.config, &config)
	host.Runtime = "runc"
	config.Env = append(config.Env, "PATH=/bin")
	got := container.InspectResponse{
		ContainerJSONBase: &container.ContainerJSONBase{
			Image: want.config.Image, HostConfig: &host, State: &container.State{Status: container.StateCreated},
		},
		Config:          &config,
		NetworkSettings: &container.NetworkSettings{Networks: map[string]*network.EndpointSettings{"none": {}}},
	}
	for i, m := range host.Mounts {
		host.Mounts[i].VolumeOptions.DriverConfig = &mount.Driver{} // as Docker 20.10 tells it
		got.Mounts = append(got.Mounts, container.MountPoint{
			Type: mount.TypeVolume, Name: m.Source, Source: "/var/lib/docker/volumes/" + m.Source + "/_data", Destination: m.Target, Driver: "local", Mode: "z", RW: !m.ReadOnly,
		})
	}
	return want, got
}

// recode copies a value over the wire format, as the engine does.
func recode(t *testing.T, from, to any) {
	t.Helper()
	b, err := json.Marshal(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, to); err != nil {
		t.Fatal(err)
	}
}

func TestCheckAcceptsWhatWasAskedFor(t *testing.T) {
	want, got := made(t)
	if err := check(want, testEngine, got); err != nil {
		t.Error(err)
	}
	if err := confined(got, func(string) bool { return false }); err != nil {
		t.Error(err)
	}
}

// Every field of the host configuration is changed in turn, also those that
// nobody thought of.
func TestCheckSeesEveryField(t *testing.T) {
	for _, f := range reflect.VisibleFields(reflect.TypeFor[container.HostConfig]()) {
		if f.Anonymous || f.Name == "ConsoleSize" {
			continue
		}
		want, got := made(t)
		disturb(t, reflect.ValueOf(got.HostConfig).Elem().FieldByIndex(f.Index))
		if err := check(want, testEngine, got); err == nil || !strings.Contains(err.Error(), f.Name) {
			t.Errorf("another %s: got %v", f.Name, err)
		}
	}
}

// disturb changes a value to another that says something.
func disturb(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Uint16, reflect.Uint64:
		v.SetUint(v.Uint() + 1)
	case reflect.Slice:
		v.Set(reflect.Append(v, element(v.Type().Elem())))
	case reflect.Map:
		m := reflect.MakeMap(v.Type())
		m.SetMapIndex(reflect.ValueOf("x").Convert(v.Type().Key()), element(v.Type().Elem()))
		v.Set(m)
	case reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		if !v.IsNil() {
			p.Elem().Set(v.Elem())
		}
		disturb(t, p.Elem())
		v.Set(p)
	case reflect.Struct:
		disturb(t, v.Field(0))
	default:
		t.Fatalf("no way to change a %s", v.Type())
	}
}

func element(of reflect.Type) reflect.Value {
	if of.Kind() == reflect.Pointer {
		return reflect.New(of.Elem())
	}
	return reflect.Zero(of)
}

func TestCheckSeesTheRest(t *testing.T) {
	for name, change := range map[string]func(*container.InspectResponse){
		"image": func(c *container.InspectResponse) { c.Image = "sha256:b" },
		"user":  func(c *container.InspectResponse) { c.Config.User = "0:0" },
		"mount": func(c *container.InspectResponse) {
			c.Mounts = append(c.Mounts, container.MountPoint{Destination: "/x"})
		},
		"no mount":         func(c *container.InspectResponse) { c.Mounts = c.Mounts[:1] },
		"a bind":           func(c *container.InspectResponse) { c.Mounts[0].Type = mount.TypeBind },
		"a driver":         func(c *container.InspectResponse) { c.Mounts[0].Driver = "nfs" },
		"a volume":         func(c *container.InspectResponse) { c.Mounts[0].Name = c.Mounts[1].Name },
		"a target":         func(c *container.InspectResponse) { c.Mounts[0].Destination = "/proc" },
		"a writable one":   func(c *container.InspectResponse) { c.Mounts[1].RW = true },
		"mounted twice":    func(c *container.InspectResponse) { c.Mounts[1] = c.Mounts[0] },
		"shared":           func(c *container.InspectResponse) { c.Mounts[0].Propagation = mount.PropagationRShared },
		"label of volumes": func(c *container.InspectResponse) { c.Config.Labels[labelVolumes] = "" },
		"network":          func(c *container.InspectResponse) { c.NetworkSettings.Networks["bridge"] = nil },
		"label":            func(c *container.InspectResponse) { c.Config.Labels[labelOwner] = "x" },
		"arguments":        func(c *container.InspectResponse) { c.Config.Cmd = []string{"other"} },
		"entry point":      func(c *container.InspectResponse) { c.Config.Entrypoint = []string{"/other"} },
		"directory":        func(c *container.InspectResponse) { c.Config.WorkingDir = "/" },
		"env":              func(c *container.InspectResponse) { c.Config.Env = nil },
		"health":           func(c *container.InspectResponse) { c.Config.Healthcheck = nil },
		"stdin":            func(c *container.InspectResponse) { c.Config.OpenStdin = true },
		"apparmor":         func(c *container.InspectResponse) { c.AppArmorProfile = "unconfined" },
		"state":            func(c *container.InspectResponse) { c.State.Status = container.StateRunning },
		"hostname":         func(c *container.InspectResponse) { c.Config.Hostname = "gateway" },
		"no state":         func(c *container.InspectResponse) { c.State = nil },
		"no network":       func(c *container.InspectResponse) { c.NetworkSettings = nil },
	} {
		want, got := made(t)
		change(&got)
		if err := check(want, testEngine, got); err == nil {
			t.Errorf("%s: another one passes", name)
		}
	}
}

func TestOnlyConfinedContainersAreAdopted(t *testing.T) {
	for name, change := range map[string]func(*container.HostConfig){
		"privileged":   func(h *container.HostConfig) { h.Privileged = true },
		"host network": func(h *container.HostConfig) { h.NetworkMode = "host" },
		"bridge":       func(h *container.HostConfig) { h.NetworkMode = "bridge" },
		"host pids":    func(h *container.HostConfig) { h.PidMode = "host" },
		"bind":         func(h *container.HostConfig) { h.Binds = []string{"/:/host"} },
		"bind mount":   func(h *container.HostConfig) { h.Mounts[0].Type = mount.TypeBind },
		"another volume": func(h *container.HostConfig) {
			h.Mounts[0].Source = engineVolumeName(testNode, "dddddddddddddddd", "bbbbbbbbbbbbbbbb")
		},
		"a target":      func(h *container.HostConfig) { h.Mounts[0].Target = "/proc/x" },
		"another mount": func(h *container.HostConfig) { h.Mounts = append(h.Mounts, h.Mounts[0]) },
		"volumes from":  func(h *container.HostConfig) { h.VolumesFrom = []string{"x"} },
		"device":        func(h *container.HostConfig) { h.Devices = []container.DeviceMapping{{}} },
		"capability":    func(h *container.HostConfig) { h.CapAdd = []string{"SYS_ADMIN"} },
		"kept caps":     func(h *container.HostConfig) { h.CapDrop = nil },
		"writable root": func(h *container.HostConfig) { h.ReadonlyRootfs = false },
		"privileges":    func(h *container.HostConfig) { h.SecurityOpt = h.SecurityOpt[1:] },
		"unconfined":    func(h *container.HostConfig) { h.SecurityOpt = []string{"no-new-privileges", "seccomp=unconfined"} },
		"published":     func(h *container.HostConfig) { h.PublishAllPorts = true },
		"memory":        func(h *container.HostConfig) { h.Memory = 0 },
		"processes":     func(h *container.HostConfig) { h.PidsLimit = nil },
	} {
		_, got := made(t)
		change(got.HostConfig)
		if err := confined(got, func(string) bool { return false }); err == nil {
			t.Errorf("%s: adopted", name)
		}
	}
	// A network is another's, unless it is that of a sandbox of ours.
	for _, tc := range []struct{ running, ours, ok bool }{{true, false, false}, {true, true, true}, {false, false, true}} {
		_, got := made(t)
		got.HostConfig.NetworkMode, got.State.Running = container.NetworkMode("container:"+someID), tc.running
		err := confined(got, func(id string) bool { return tc.ours && id == someID })
		if (err == nil) != tc.ok {
			t.Errorf("%+v: got %v", tc, err)
		}
	}
	for name, change := range map[string]func(*container.InspectResponse){
		"a mount more":         func(c *container.InspectResponse) { c.Mounts = append(c.Mounts, c.Mounts[0]) },
		"one mounted twice":    func(c *container.InspectResponse) { c.Mounts[1] = c.Mounts[0] },
		"a bind":               func(c *container.InspectResponse) { c.Mounts[0].Type = mount.TypeBind },
		"another driver":       func(c *container.InspectResponse) { c.Mounts[0].Driver = "x" },
		"no label":             func(c *container.InspectResponse) { c.Config.Labels[labelVolumes] = "" },
		"another node's":       func(c *container.InspectResponse) { c.Config.Labels[labelNode] = "x" },
		"a label for nothing":  func(c *container.InspectResponse) { c.Mounts, c.HostConfig.Mounts = nil, nil },
		"a label of something": func(c *container.InspectResponse) { c.Config.Labels[labelVolumes] = "../x,y" },
	} {
		_, got := made(t)
		change(&got)
		if err := confined(got, func(string) bool { return false }); err == nil {
			t.Errorf("%s: adopted", name)
		}
	}
	_, got := made(t)
	got.Config.User = ""
	if confined(got, func(string) bool { return false }) == nil {
		t.Error("root: adopted")
	}
}

// A workload runs under the runtime that the machine's owner chose, or not at all.
func TestCheckSeesTheRuntime(t *testing.T) {
	for _, tc := range []struct {
		want, got string
		ok        bool
	}{{"", "runc", true}, {"", "runsc", false}, {"runsc", "runsc", true}, {"runsc", "runc", false}, {"runsc", "", false}} {
		want, got := made(t)
		want.host.Runtime, got.HostConfig.Runtime = tc.want, tc.got
		if err := check(want, testEngine, got); (err == nil) != tc.ok {
			t.Errorf("%q instead of %q: got %v", tc.got, tc.want, err)
		}
	}
}

func TestJudgesTheRuntime(t *testing.T) {
	info := system.Info{DefaultRuntime: "runc", Runtimes: map[string]system.RuntimeWithStatus{
		"runc":   {Runtime: system.Runtime{Path: "runc"}},
		"runsc":  {Runtime: system.Runtime{Path: "/usr/local/bin/runsc"}},
		"gvisor": {Runtime: system.Runtime{Path: "/usr/bin/runsc", Args: []string{"--platform=systrap"}}},
		"open":   {Runtime: system.Runtime{Path: "/usr/bin/runsc", Args: []string{"--network=host"}}},
	}}
	for chosen, secludes := range map[string]bool{"": false, "runc": false, "runsc": true, "gvisor": true, "open": false} {
		if got, err := judgeRuntime(info, chosen); err != nil || got != secludes {
			t.Errorf("%q: got %t, %v", chosen, got, err)
		}
	}
	if _, err := judgeRuntime(info, "kata"); mesh.KindOf(errOr(err)) != mesh.Unsupported || !strings.Contains(err.Error(), "runsc") {
		t.Errorf("one that is not there: %v", err)
	}
}

// Where ports and egress cannot be, nothing starts that would wait for them.
func TestSecludedRuntimeIsRefused(t *testing.T) {
	d, err := New(Config{Node: testNode, Host: "unix://" + t.TempDir() + "/none.sock"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.engine = &engine{cpus: 2, secludes: true}
	_, err = d.Start(t.Context(), mesh.Workload{ID: "aaaaaaaaaaaaaaaa", Spec: mesh.Spec{Name: "a", Runtime: mesh.Container, Image: "x", Network: "n"}})
	if mesh.KindOf(errOr(err)) != mesh.Unsupported || !strings.Contains(mesh.AsError(err).Hint, "--network=host") {
		t.Errorf("got %v", err)
	}
}

func TestLabels(t *testing.T) {
	good := func() map[string]string {
		return map[string]string{labelNode: testNode.String(), labelWorkload: "aaaaaaaaaaaaaaaa", labelPort: "80"}
	}
	if bad := wrongLabels(good(), testNode); bad != "" {
		t.Errorf("%s is wrong with ours", bad)
	}
	for key, value := range map[string]string{labelNode: "other", labelWorkload: "../x", labelPort: "65536"} {
		l := good()
		l[key] = value
		if got := wrongLabels(l, testNode); got != key {
			t.Errorf("%s=%s: got %q", key, value, got)
		}
	}
}

func TestJudgesTheEngine(t *testing.T) {
	good := func() system.Info {
		return system.Info{
			OSType: "linux", ServerVersion: "28.0.0", Architecture: "aarch64", DefaultRuntime: "runc", NCPU: 4,
			SecurityOptions: []string{"name=seccomp,profile=builtin", "name=cgroupns"},
			MemoryLimit:     true, SwapLimit: true, CPUCfsQuota: true, PidsLimit: true,
		}
	}
	got, err := judge(good(), "1.51")
	if want := (engine{version: "28.0.0", arch: "arm64", runtime: "runc", cpus: 4}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	mapped := good()
	mapped.SecurityOptions = append(mapped.SecurityOptions, "name=userns")
	if got, err := judge(mapped, "1.41"); err != nil || !got.remaps {
		t.Errorf("an engine that maps users: got %+v, %v", got, err)
	}
	for name, change := range map[string]func(*system.Info){
		"windows":      func(i *system.Info) { i.OSType = "windows" },
		"no seccomp":   func(i *system.Info) { i.SecurityOptions = nil },
		"no memory":    func(i *system.Info) { i.MemoryLimit = false },
		"no swap":      func(i *system.Info) { i.SwapLimit = false },
		"no quota":     func(i *system.Info) { i.CPUCfsQuota = false },
		"no processes": func(i *system.Info) { i.PidsLimit = false },
	} {
		info := good()
		change(&info)
		if _, err := judge(info, "1.51"); mesh.KindOf(errOr(err)) != mesh.Unsupported {
			t.Errorf("%s: got %v, want mesh.Unsupported", name, err)
		}
	}
	if _, err := judge(good(), "1.40"); mesh.KindOf(errOr(err)) != mesh.Unsupported {
		t.Errorf("an old engine: got %v, want mesh.Unsupported", err)
	}
}

// What had ended before this machine started had been ended by its shutdown.
func TestEndedWithTheMachine(t *testing.T) {
	boot := time.Date(2026, 11, 26, 8, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		state container.State
		want  bool
	}{
		{container.State{FinishedAt: "2026-11-26T07:59:59.5Z"}, true},
		{container.State{FinishedAt: "2026-11-26T08:00:01Z"}, false},
		{container.State{FinishedAt: "2026-11-26T07:59:59Z", Running: true}, false},
		{container.State{FinishedAt: ""}, false},
	} {
		if got := endedBefore(&c.state, boot); got != c.want {
			t.Errorf("%+v: got %t", c.state, got)
		}
	}
	if up := upSince(); up < time.Second {
		t.Errorf("up for %s", up)
	}
}
