package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

func cmdDown(a *app) *cobra.Command {
	var peer, file string
	cmd := &cobra.Command{
		Use:   "down PROJECT | --file compose.yaml",
		Short: "Remove all workloads of a Compose project",
		Long: `Stops and removes what was deployed of a Compose file, also what the file no longer
names, what others depend on last. A project is called as the file says with name,
or else like the directory that the file is in. Volumes and secrets stay; the
commands that remove them are told.`,
		Example: `  peerctl down shop --peer bob
  peerctl down --file compose.yaml --peer bob`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 || (file == "") != (len(args) == 1) {
				return usagef("down takes one PROJECT, or --file and the Compose file")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.down(cmd.Context(), strings.Join(args, ""), file, peer)
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "the Compose `FILE` whose project it is")
	a.peerFlag(cmd, &peer)
	return cmd
}

func (a *app) down(ctx context.Context, project, file, peer string) error {
	var there []control.Workload
	var left []string // commands
	err := a.withClient(func(c *control.Client) error {
		if file != "" {
			p, err := composeProject(ctx, c, file, nil)
			if err != nil {
				return err
			}
			project = p.Name
		}
		var err error
		if there, err = workloadsOf(ctx, c, peer, project); err != nil && len(there) == 0 {
			return err
		}
		left, err = leftOf(ctx, c, project, there)
		return err
	})
	if err != nil {
		return err
	}
	if len(there) == 0 {
		return mesh.Errorf(mesh.NotFound, "there is nothing of the project %s", project).WithHint("see what there is with: peerctl ps")
	}
	refs, peers := map[string]string{}, []string{}
	var names []string
	for _, w := range there {
		refs[w.Name], names, peers = string(w.ID), append(names, w.Name), append(peers, w.Peer)
	}
	slices.Sort(peers)
	if peers = slices.Compact(peers); len(peers) > 1 {
		return usagef("the project %s is on several peers: %s", project, strings.Join(peers, ", ")).hint("say which with --peer")
	}
	err = a.each(names, func(c *control.Client, name string) (control.Workload, error) {
		return c.Remove(ctx, refs[name], peers[0], true)
	})
	for _, command := range left {
		a.note("stays; remove it with: %s", command)
	}
	return err
}

// leftOf lists the commands that remove what is the project's own and outlives its
// workloads.
func leftOf(ctx context.Context, c *control.Client, project string, there []control.Workload) (commands []string, err error) {
	own := func(name string) bool { return strings.HasPrefix(name, project+"-") }
	for _, w := range there {
		full, err := c.Workload(ctx, string(w.ID), w.Peer)
		if err != nil {
			return nil, err
		}
		if full.Spec == nil {
			continue
		}
		for _, v := range full.Spec.Volumes {
			if own(v.Name) {
				commands = append(commands, "peerctl volume rm "+v.Name+" --peer "+w.Peer)
			}
		}
		for _, s := range full.Spec.Secrets {
			if own(s.Name) {
				commands = append(commands, "peerctl secret rm "+s.Name+" --peer "+w.Peer)
			}
		}
	}
	slices.Sort(commands)
	return slices.Compact(commands), nil
}
