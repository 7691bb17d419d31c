package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
	"peercompute/pkg/identity"
	"peercompute/pkg/member"
	"peercompute/pkg/mesh"
	"peercompute/pkg/node"
)

func doctorCommand(stdout io.Writer) *cobra.Command {
	var home, file string
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Look whether a node could run here, while it does not",
		Long: `Opens the node's home as peerd run would, looks at key, state, disk, clock and
runtimes, and says how to mend what is wrong. It reaches nobody and changes nothing.
Of a peerd that runs: peerctl doctor.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if home == "" {
				if home, err = control.DefaultHome(); err != nil {
					return err
				}
			}
			if home, err = filepath.Abs(home); err != nil {
				return err
			}
			if _, err := os.Stat(filepath.Join(home, identity.KeyFile)); errors.Is(err, fs.ErrNotExist) {
				return mesh.Errorf(mesh.NotFound, "there is no node in %s yet", home).WithHint("peerd run makes one")
			}
			cfg, err := loadConfig(home, file)
			if err != nil {
				return err
			}
			return diagnose(c.Context(), home, cfg, stdout)
		},
	}
	c.Flags().StringVar(&home, "home", "", "the node's home directory (default: $"+control.HomeEnv+", else the user's configuration directory)")
	c.Flags().StringVar(&file, "config", "", "configuration file (default: HOME/peerd.toml, if it is there)")
	return c
}

func diagnose(ctx context.Context, home string, cfg config, out io.Writer) (err error) {
	log := slog.New(slog.DiscardHandler)
	m, err := member.Open(member.Config{Home: home, Role: "peer", Version: version, Log: log})
	if err != nil {
		return err // it says what is wrong, and what to do
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	modules, err := node.OpenModules(home)
	if err != nil {
		return err
	}
	rt := &runtimes{modules: modules}
	defer func() { err = errors.Join(err, rt.close()) }()
	if err := rt.open(ctx, cfg, m); err != nil {
		return err
	}
	checks := m.Checkup()
	for _, kind := range []mesh.Runtime{mesh.Container, mesh.Wasm} {
		r, ok := rt.all[kind]
		if !ok {
			continue
		}
		c := control.Check{Name: string(kind), State: control.CheckOK}
		if c.Detail, err = r.Ready(ctx); err != nil {
			c.State, c.Detail, c.Fix = control.CheckWarning, err.Error(), "start the engine; without one, WASM runs all the same"
		}
		checks = append(checks, c)
	}
	for _, w := range rt.warnings {
		checks = append(checks, control.Check{Name: "machine", State: control.CheckWarning, Detail: w})
	}
	problems := 0
	for _, c := range checks {
		if c.State == control.CheckProblem {
			problems++
		}
		fmt.Fprintf(out, "%-10s %-8s %s\n", c.Name, c.State, c.Detail)
		if c.Fix != "" {
			fmt.Fprintf(out, "%19s %s\n", "next:", c.Fix)
		}
	}
	if problems > 0 {
		return mesh.Errorf(mesh.Unavailable, "%d of %d checks found a problem", problems, len(checks)).WithHint("what to do is said beneath each")
	}
	return nil
}
