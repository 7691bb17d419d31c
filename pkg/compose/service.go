package compose

import (
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"peercompute/pkg/mesh"
)

const (
	stopGrace   = 10 * time.Second // a workload has to end before it is killed
	startPeriod = time.Minute      // and to become healthy, in which failures do not count
)

// file is what the services of a file refer to, by what it calls them.
type file struct {
	project  string
	networks map[string]string
	volumes  map[string]mesh.VolumeMount
	secrets  map[string]string
	egress   any             // of services that do not say it
	ends     map[string]bool // services whose end others wait for
}

// service makes a workload of one service, and lists what of it cannot be had.
func (f file) service(s types.ServiceConfig) (out Service, bad []string) {
	say := func(format string, args ...any) {
		bad = append(bad, fmt.Sprintf("services.%s: "+format, append([]any{s.Name}, args...)...))
	}
	note := func(format string, args ...any) { out.Notes = append(out.Notes, fmt.Sprintf(format, args...)) }
	spec := mesh.Spec{
		Name: within(f.project, s.Name), Runtime: mesh.Container, Image: s.Image, Project: f.project,
		Entrypoint: s.Entrypoint, Args: s.Command, WorkDir: s.WorkingDir,
	}
	if s.ContainerName != "" {
		spec.Name = s.ContainerName
	}
	if s.Build != nil {
		out.Build, spec.Image = build(*s.Build, say), ""
	}
	for _, k := range slices.Sorted(maps.Keys(s.Environment)) {
		if v := s.Environment[k]; v != nil {
			spec.Env = append(spec.Env, k+"="+*v)
		}
	}
	ports(&spec, s, say, note)
	join(&spec, s, f.networks, say)
	egress(&spec, s, f.egress, say)
	spec.Volumes = mounts(s, f.volumes, say)
	spec.Tmpfs = scratch(s, note)
	spec.Secrets = secretMounts(s, f.secrets, say)
	limits(&spec, s, say)
	spec.Health = health(s, say, note)
	restart(&spec, s, say, note)
	if out.Ends = f.ends[s.Name]; out.Ends {
		if spec.Port, spec.Publish, out.Notes = 0, nil, nil; spec.Restart == "" {
			spec.Restart = mesh.RestartNo // as Compose has it: that it failed is told at once
		}
		if spec.Restart == mesh.RestartAlways {
			say("others wait for it to end, and it is to be started again whenever it ends")
		}
		note("what depends on it waits until it has ended")
	}
	rest(s, spec.Name, say, note)
	if s.Entrypoint != nil && len(s.Entrypoint) == 0 || s.Command != nil && len(s.Command) == 0 {
		say("an empty entrypoint or command is not supported: leave it out to have the image's")
	}
	if s.Build == nil && spec.Image == "" {
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

// rest is what is the same for every workload here, whatever a file says.
func rest(s types.ServiceConfig, name string, say, note func(string, ...any)) {
	for _, o := range s.SecurityOpt {
		if o != "no-new-privileges" && o != "no-new-privileges:true" {
			say("security_opt %q is not supported: no-new-privileges holds in any case", o)
		}
	}
	if n := s.GetScale(); n != 1 {
		say("it is to run %d times: a service runs once", n)
	}
	if d := s.StopGracePeriod; d != nil && time.Duration(*d) > stopGrace {
		say("a stop_grace_period of %s is not supported: a workload has %s to end", d, stopGrace)
	}
	if g := s.StopSignal; g != "" && g != "SIGTERM" {
		say("the stop_signal %s is not supported: put STOPSIGNAL into the image", g)
	}
	switch s.PullPolicy {
	case "", types.PullPolicyMissing, types.PullPolicyBuild:
	default:
		say("the pull_policy %s is not supported: a peer pulls what it lacks", s.PullPolicy)
	}
	if s.ShmSize > 64<<20 {
		say("shm_size is at most 64 MiB")
	}
	if len(s.Labels) > 0 {
		note("its labels are not kept")
	}
	if s.Logging != nil {
		note("its log is kept by the peer, 16 MiB at most: peerctl logs")
	}
	if s.Init != nil && *s.Init {
		note("no init is put before its program")
	}
	if s.Hostname != "" && s.Hostname != name {
		note("its host name is %s, and not %s", name, s.Hostname)
	}
}

// restart: Compose's default is never, but what is deployed here is meant to stay up.
func restart(spec *mesh.Spec, s types.ServiceConfig, say, note func(string, ...any)) {
	word := s.Restart
	if d := s.Deploy; word == "" && d != nil && d.RestartPolicy != nil {
		switch c := d.RestartPolicy.Condition; c {
		case "none":
			word = "no"
		case "any", "":
			word = "always"
		default:
			word = c
		}
	}
	word, times, counted := strings.Cut(word, ":")
	if counted {
		note("it is started again without a count, after longer and longer pauses, and not only %s times", times)
	}
	switch word {
	case "":
	case "always", "unless-stopped":
		spec.Restart = mesh.RestartAlways
	case "no":
		spec.Restart = mesh.RestartNo
	case "on-failure":
		spec.Restart = mesh.RestartOnFailure
	default:
		say("restart %q is not no, always, on-failure or unless-stopped", word)
	}
}

// scratch are the directories in memory. All share the workload's scratch space evenly,
// and /tmp is there in any case.
func scratch(s types.ServiceConfig, note func(string, ...any)) (out []string) {
	add := func(dir, options string) {
		if dir = path.Clean(dir); dir != "/tmp" {
			out = append(out, dir)
		}
		if options != "" {
			note("%s has the size that all scratch space here has, not %s", dir, options)
		}
	}
	for _, dir := range s.Tmpfs {
		dir, options, _ := strings.Cut(dir, ":")
		add(dir, options)
	}
	for _, v := range s.Volumes {
		if v.Type == types.VolumeTypeTmpfs {
			options := ""
			if v.Tmpfs != nil && v.Tmpfs.Size > 0 {
				options = fmt.Sprintf("%d bytes", v.Tmpfs.Size)
			}
			add(v.Target, options)
		}
	}
	return out
}

func limits(spec *mesh.Spec, s types.ServiceConfig, say func(string, ...any)) {
	r := &spec.Resources // what is reserved for it is what it may have
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

func health(s types.ServiceConfig, say, note func(string, ...any)) *mesh.Health {
	c := s.HealthCheck
	if c == nil || c.Disable || len(c.Test) == 0 || c.Test[0] == "NONE" {
		return nil
	}
	h := mesh.Health{Check: mesh.CheckCommand, Timeout: 30 * time.Second} // Compose's default
	if d := c.StartPeriod; d != nil && time.Duration(*d) > startPeriod {
		note("it has %s to become healthy at a start, and not %s", startPeriod, d)
	}
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
