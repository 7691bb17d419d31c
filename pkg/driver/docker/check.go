package docker

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"

	"peercompute/pkg/mesh"
)

// check compares a container that was made, and has not run, with what was asked
// for. Anything that differs is an error: the engine, its configuration or an
// image has added something that nobody here decided.
func check(want blueprint, e engine, got container.InspectResponse) error {
	if got.ContainerJSONBase == nil || got.HostConfig == nil || got.Config == nil || got.State == nil || got.NetworkSettings == nil {
		return mesh.Errorf(mesh.Internal, "the container engine describes a container incompletely")
	}
	bad := hostDeviations(want.host, got.HostConfig, e)
	say := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	c := got.Config
	if got.Image != want.config.Image {
		say("image %s", got.Image)
	}
	if c.User != want.config.User {
		say("user %q", c.User)
	}
	if want.config.Hostname != "" && c.Hostname != want.config.Hostname { // "" = its sandbox's
		say("hostname %q", c.Hostname)
	}
	own := len(want.config.Entrypoint) > 0
	if (own || len(want.config.Cmd) > 0) && !slices.Equal(c.Cmd, want.config.Cmd) {
		say("arguments")
	}
	if own && !slices.Equal(c.Entrypoint, want.config.Entrypoint) {
		say("entry point")
	}
	if want.config.WorkingDir != "" && c.WorkingDir != want.config.WorkingDir {
		say("working directory")
	}
	for _, kv := range want.config.Env {
		if !slices.Contains(c.Env, kv) {
			say("environment")
			break
		}
	}
	if c.Healthcheck == nil || !slices.Equal(c.Healthcheck.Test, want.config.Healthcheck.Test) {
		say("health check")
	}
	for k, v := range want.config.Labels {
		if c.Labels[k] != v {
			say("label %s", k)
		}
	}
	if c.Tty || c.OpenStdin || c.AttachStdin {
		say("standard input")
	}
	bad = append(bad, checkMounts(want.host.Mounts, got.Mounts)...)
	for name := range got.NetworkSettings.Networks {
		if name != "none" {
			say("network %s", name)
		}
	}
	if got.AppArmorProfile == "unconfined" {
		say("AppArmor unconfined")
	}
	if got.State.Status != container.StateCreated {
		say("state %s", got.State.Status)
	}
	if len(bad) == 0 {
		return nil
	}
	slices.Sort(bad)
	return mesh.Errorf(mesh.Unsupported, "the container engine made a container other than the one asked for (%s)", strings.Join(bad, ", ")).
		WithHint("look for defaults in the engine's configuration (daemon.json) that touch these settings")
}

// hostDeviations names the fields of the host configuration that differ. It goes
// over all there are, so that one which a later version adds is not overlooked.
func hostDeviations(want, got *container.HostConfig, e engine) []string {
	var bad []string
	w, g := reflect.ValueOf(want).Elem(), reflect.ValueOf(got).Elem()
	for _, f := range reflect.VisibleFields(w.Type()) {
		if f.Anonymous {
			continue
		}
		switch f.Name {
		case "ConsoleSize": // of a console that is not there
			continue
		case "Runtime": // the owner of the machine chose it
			if want.Runtime == "" && got.Runtime != e.runtime || want.Runtime != "" && got.Runtime != want.Runtime {
				bad = append(bad, "Runtime")
			}
			continue
		}
		a, b := w.FieldByIndex(f.Index), g.FieldByIndex(f.Index)
		if f.Name == "Mounts" {
			a, b = reflect.ValueOf(plainMounts(want.Mounts)), reflect.ValueOf(plainMounts(got.Mounts))
		}
		if !(empty(a) && empty(b)) && !reflect.DeepEqual(a.Interface(), b.Interface()) {
			bad = append(bad, f.Name)
		}
	}
	return bad
}

// empty reports whether v says nothing: the zero value, no elements, or a pointer
// to such.
func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		return v.Len() == 0
	case reflect.Pointer:
		return v.IsNil() || empty(v.Elem())
	}
	return v.IsZero()
}

// confined is what must hold of any container before it is adopted, whatever
// workload it runs: labels alone prove nothing about a container. sandbox says whether
// a container is a sandbox of ours that is open, by its ID.
func confined(got container.InspectResponse, sandbox func(id string) bool) error {
	if got.ContainerJSONBase == nil || got.HostConfig == nil || got.Config == nil || got.State == nil || got.NetworkSettings == nil {
		return mesh.Errorf(mesh.Internal, "the container engine describes a container incompletely")
	}
	h := got.HostConfig
	var bad []string
	for what, is := range map[string]bool{
		"privileged":        h.Privileged,
		"network":           h.NetworkMode != "none" && !joins(got, sandbox),
		"mounts":            !onlyVolumes(got),
		"devices":           len(h.Devices) > 0 || len(h.DeviceRequests) > 0 || len(h.DeviceCgroupRules) > 0,
		"published ports":   len(h.PortBindings) > 0 || h.PublishAllPorts,
		"capabilities":      len(h.CapAdd) > 0 || !slices.Equal(h.CapDrop, []string{"ALL"}),
		"host namespace":    h.PidMode != "" || h.UTSMode != "" || h.UsernsMode != "" || h.IpcMode != container.IPCModePrivate || h.CgroupnsMode != container.CgroupnsModePrivate,
		"writable root":     !h.ReadonlyRootfs,
		"privilege gain":    !slices.Contains(h.SecurityOpt, "no-new-privileges"),
		"system calls":      !slices.ContainsFunc(h.SecurityOpt, func(o string) bool { return strings.HasPrefix(o, "seccomp={") }),
		"root user":         !numericUser(got.Config.User),
		"unbounded memory":  h.Memory <= 0 || h.MemorySwap != h.Memory,
		"unbounded threads": h.PidsLimit == nil || *h.PidsLimit <= 0,
	} {
		if is {
			bad = append(bad, what)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	slices.Sort(bad)
	return mesh.Errorf(mesh.Denied, "a container that carries our labels is not one of ours: %s", strings.Join(bad, ", "))
}

// joins reports whether a container has no network but that of a sandbox. One that
// has ended may outlive its sandbox.
func joins(got container.InspectResponse, sandbox func(id string) bool) bool {
	id, ok := strings.CutPrefix(string(got.HostConfig.NetworkMode), sandboxPrefix)
	return ok && (!got.State.Running || sandbox(id))
}

// numericUser reports whether u is "N:N" with N a number above zero.
func numericUser(u string) bool {
	user, group, ok := strings.Cut(u, ":")
	return ok && user == group && user != "" && user[0] != '0' && strings.Trim(user, "0123456789") == ""
}

// wrongLabels names the first of our labels that does not hold what it should.
func wrongLabels(labels map[string]string, node mesh.PeerID) string {
	want := map[string]func(string) bool{
		labelNode:     func(v string) bool { return v == node.String() },
		labelWorkload: func(v string) bool { _, err := mesh.ParseWorkloadID(v); return err == nil },
		labelPort:     func(v string) bool { _, err := parsePort(v); return err == nil },
	}
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if !want[k](labels[k]) {
			return k
		}
	}
	return ""
}
