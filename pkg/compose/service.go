package compose

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"peercompute/pkg/mesh"
)

// service makes a workload of one service, and lists what of it cannot be had.
// volumes and secrets are those that the file names, by what it calls them.
func service(project string, s types.ServiceConfig, volumes map[string]mesh.VolumeMount, secrets map[string]string) (out Service, bad []string) {
	say := func(format string, args ...any) {
		bad = append(bad, fmt.Sprintf("services.%s: "+format, append([]any{s.Name}, args...)...))
	}
	spec := mesh.Spec{Name: s.Name, Runtime: mesh.Container, Image: s.Image, Args: s.Command, Network: project}
	if s.ContainerName != "" {
		spec.Name = s.ContainerName
	}
	if s.Build != nil {
		out.Build, spec.Image = s.Build.Context, ""
	}
	for _, k := range slices.Sorted(maps.Keys(s.Environment)) {
		if v := s.Environment[k]; v != nil {
			spec.Env = append(spec.Env, k+"="+*v)
		}
	}
	for _, dir := range s.Tmpfs {
		dir, options, _ := strings.Cut(dir, ":")
		if options != "" {
			say("tmpfs %s: options (%s) are not supported", dir, options)
		}
		spec.Tmpfs = append(spec.Tmpfs, dir)
	}
	ports(&spec, s, say)
	spec.Volumes = mounts(s, volumes, say)
	spec.Secrets = secretMounts(s, secrets, say)
	limits(&spec, s, say)
	spec.Health = health(s, say)
	switch s.Restart {
	case "", "always", "unless-stopped":
		if spec.Restart = mesh.RestartAlways; s.Restart == "" {
			spec.Restart = "" // what is usual here
		}
	case "no":
		spec.Restart = mesh.RestartNo
	default:
		if s.Restart != "on-failure" {
			say("restart %q is not no, always, on-failure or unless-stopped", s.Restart)
		}
		spec.Restart = mesh.RestartOnFailure
	}
	switch names := slices.Sorted(maps.Keys(s.Networks)); {
	case len(names) > 1:
		say("it is on %d networks (%s): one is supported", len(names), strings.Join(names, ", "))
	case len(names) == 1 && names[0] != "default":
		spec.Network = label(project + "-" + names[0])
	}
	for on, d := range s.DependsOn {
		if d.Condition == types.ServiceConditionCompletedSuccessfully {
			say("it waits for %s to end, which is not supported", on)
		}
	}
	for _, o := range s.SecurityOpt {
		if o != "no-new-privileges" && o != "no-new-privileges:true" {
			say("security_opt %q is not supported: no-new-privileges holds in any case", o)
		}
	}
	if out.Build == "" && spec.Image == "" {
		say("it has neither image nor build")
	}
	out.Spec = spec
	judged := spec
	if judged.Image == "" {
		judged.Image = "to-be-built"
	}
	if err := judged.Validate(); err != nil {
		say("%s", mesh.AsError(err).Msg)
	}
	return out, bad
}

// ports: the one that is published becomes the public name, whatever port of this
// machine it is mapped to; else the one that is exposed is what siblings dial.
func ports(spec *mesh.Spec, s types.ServiceConfig, say func(string, ...any)) {
	if len(s.Ports) > 1 {
		var all []string
		for _, p := range s.Ports {
			all = append(all, strconv.FormatUint(uint64(p.Target), 10))
		}
		say("it publishes %d ports (%s): one is supported, as the public name of the service", len(s.Ports), strings.Join(all, ", "))
	}
	for _, p := range s.Ports {
		if p.Protocol != "" && p.Protocol != "tcp" {
			say("a %s port cannot be published", p.Protocol)
		}
		if p.Target == 0 || p.Target > math.MaxUint16 {
			say("%d is not a port", p.Target)
		}
		spec.Port, spec.Publish = uint16(p.Target), &mesh.Publication{}
	}
	if spec.Port != 0 || len(s.Expose) == 0 {
		return
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(s.Expose[0], "/tcp"), 10, 16)
	if err != nil || n == 0 {
		say("it exposes %q, which is not one port", s.Expose[0])
	}
	spec.Port = uint16(n)
}

func limits(spec *mesh.Spec, s types.ServiceConfig, say func(string, ...any)) {
	r := &spec.Resources
	r.MilliCPU, r.Memory, r.PIDs = int64(s.CPUS*1000), int64(s.MemLimit), s.PidsLimit
	if s.Deploy == nil || s.Deploy.Resources.Limits == nil {
		return
	}
	l := s.Deploy.Resources.Limits
	if n := float64(l.NanoCPUs.Value()); n != 0 {
		r.MilliCPU = int64(n * 1000)
	}
	if l.MemoryBytes != 0 {
		r.Memory = int64(l.MemoryBytes)
	}
	if l.Pids != 0 {
		r.PIDs = l.Pids
	}
	if r.MilliCPU < 0 || r.Memory < 0 || r.PIDs < 0 {
		say("a limit is negative")
	}
}

func health(s types.ServiceConfig, say func(string, ...any)) *mesh.Health {
	c := s.HealthCheck
	if c == nil || c.Disable || len(c.Test) == 0 || c.Test[0] == "NONE" {
		return nil
	}
	h := mesh.Health{Check: mesh.CheckCommand}
	switch c.Test[0] {
	case "CMD":
		h.Command = c.Test[1:]
	case "CMD-SHELL":
		h.Command = append([]string{"/bin/sh", "-c"}, c.Test[1:]...)
	default:
		say("the healthcheck begins with %q, not with CMD or CMD-SHELL", c.Test[0])
	}
	if c.Interval != nil {
		h.Interval = time.Duration(*c.Interval)
	}
	if c.Timeout != nil {
		h.Timeout = time.Duration(*c.Timeout)
	}
	if c.Retries != nil {
		h.Retries = int(min(*c.Retries, math.MaxInt32))
	}
	return &h
}

// label makes a network's name one that holds here.
func label(s string) string {
	s = strings.ToLower(strings.NewReplacer("_", "-", ".", "-").Replace(s))
	if len(s) > mesh.MaxName {
		s = s[:mesh.MaxName]
	}
	return strings.Trim(s, "-")
}
