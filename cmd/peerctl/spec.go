package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"peercompute/pkg/mesh"
)

// workFlags are the flags that deploy and run share.
type workFlags struct {
	peer      string
	name      string
	env       []string
	envFiles  []string
	resources mesh.Resources
	timeout   time.Duration
	guest     guestFlags
	signed    string // a file of signatures
}

func (a *app) addWorkFlags(cmd *cobra.Command, f *workFlags) {
	flags := cmd.Flags()
	flags.StringVar(&f.peer, "peer", "", "`NAME` or ID of the peer to run it; self for this machine (default when no other is known)")
	flags.StringVar(&f.name, "name", "", "its `NAME` (default: from the image or file)")
	flags.StringArrayVarP(&f.env, "env", "e", nil, "variable `KEY=VALUE` for the program; KEY alone passes on yours; repeatable")
	flags.StringArrayVar(&f.envFiles, "env-file", nil, "`FILE` with lines of KEY=VALUE; repeatable")
	cpusVar(flags, &f.resources.MilliCPU, "cpus", "processor it may use, such as 2, 0.5 or 500m (default "+formatCPUs(mesh.DefaultMilliCPU)+")")
	sizeVar(flags, &f.resources.Memory, "memory", "memory it may use, such as 512M or 1.5GiB (default "+formatSize(mesh.DefaultMemory)+"; of a job "+formatSize(mesh.DefaultJob)+")")
	flags.Var(&value[uint64]{to: &f.resources.Fuel, parse: parseSomeFuel, kind: "FUEL"}, "fuel", "fuel that one request or job of a WASM program may burn, such as 500M or 10G (default "+formatFuel(mesh.DefaultFuel)+")")
	durationVar(flags, &f.timeout, "timeout", "how long one request or job of a WASM program may take (default "+mesh.DefaultTimeout.String()+")")
	flags.StringVar(&f.signed, "signature", "", "`FILE` with cosign's signature of the image, which it pins, or of the module, for a peer that asks for one")
	f.guest.add(cmd)
	completeFlag(cmd, "peer", a.completePeerFlag(cobra.CompletionWithDesc(self, "this machine")))
}

// parseSomeFuel reads an amount of fuel on which something can run.
func parseSomeFuel(s string) (uint64, error) {
	n, err := parseFuel(s)
	if err == nil && n == 0 {
		err = errors.New("with no fuel nothing runs")
	}
	return n, err
}

// spec is the part of a spec that these flags decide.
func (a *app) spec(f *workFlags, args []string) (mesh.Spec, error) {
	env, err := a.environment(f.envFiles, f.env)
	s := mesh.Spec{
		Name:      f.name,
		Args:      args,
		Env:       env,
		Resources: f.resources,
		Timeout:   f.timeout,
	}
	f.guest.apply(&s)
	return s, err
}

// asModule makes s run the module.
func asModule(s *mesh.Spec, m *module, shape mesh.Shape) {
	s.Runtime, s.Shape, s.Image, s.Digest = mesh.Wasm, shape, m.name(), m.digest
	if s.Name == "" {
		s.Name = moduleName(m.name())
	}
}

// check judges the form of a spec before anything is sent.
func check(s mesh.Spec) error {
	err := s.Validate()
	if err == nil {
		return nil
	}
	known := mesh.AsError(err)
	if known.Hint == "" && s.Publish != nil && s.Runtime == mesh.Container && s.Port == 0 {
		known = known.WithHint("add --port with the port that the program in the image listens on, such as --port 80")
	}
	return usageError{known}
}

// programArgs takes one target and, after "--", the program's own arguments. Words
// without "--" are accepted where loose; where they are more likely a slip, not.
func programArgs(target string, loose bool) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		before := len(args)
		if dash := cmd.ArgsLenAtDash(); dash >= 0 {
			before = dash
		}
		if before == 0 || args[0] == "" {
			return usagef("%s needs %s", cmd.CommandPath(), target).hint("see: %s --help", cmd.CommandPath())
		}
		if before > 1 && !loose {
			return usagef("%s takes no argument %q", cmd.CommandPath(), args[1]).
				hint("the program's own arguments go after --, as in: %s %s -- %s", cmd.CommandPath(), args[0], strings.Join(args[1:], " "))
		}
		return nil
	}
}

// describeResources is a line about limits; zero values are left out.
func describeResources(r mesh.Resources) string {
	var parts []string
	if r.MilliCPU > 0 {
		parts = append(parts, formatCPUs(r.MilliCPU)+" cpu")
	}
	if r.Memory > 0 {
		parts = append(parts, formatSize(r.Memory)+" memory")
	}
	if r.Disk > 0 {
		parts = append(parts, formatSize(r.Disk)+" disk")
	}
	if r.PIDs > 0 {
		parts = append(parts, fmt.Sprintf("%d processes", r.PIDs))
	}
	if r.Fuel > 0 {
		parts = append(parts, fmt.Sprintf("%d fuel", r.Fuel))
	}
	return strings.Join(parts, ", ")
}
