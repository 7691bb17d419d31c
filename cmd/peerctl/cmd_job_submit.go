package main

import (
	"github.com/spf13/cobra"
)

func cmdJobSubmit(a *app) *cobra.Command {
	var f workFlags
	var anywhere bool
	cmd := &cobra.Command{
		Use:   "submit FILE.wasm [ARGS…]",
		Short: "Queue a WASM program and print its job's ID",
		Long: `Queues a WASI program on a peer or here and returns at once. Its input is read to
its end first, unless it is a terminal. Once the ID is printed the job is on the
peer's disk; if the peer crashes while the job runs, it runs again from its
beginning, and one run is recorded. The same as peerctl run --detach.`,
		Example: `  peerctl job submit --peer bob count.wasm < words.txt
  peerctl job submit --any render.wasm -- --frame 7`,
		Args:              programArgs("a FILE.wasm", true),
		ValidArgsFunction: completeModules,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := anyOrPeer(anywhere, f.peer); err != nil {
				return err
			}
			return a.submit(cmd.Context(), &f, anywhere, args[0], args[1:])
		},
	}
	a.addWorkFlags(cmd, &f)
	cmd.Flags().BoolVar(&anywhere, "any", false, "on whichever trusted peer accepts it, the nearest first; says which")
	return cmd
}

func anyOrPeer(anywhere bool, peer string) error {
	if anywhere && peer != "" {
		return usagef("--any and --peer contradict each other").hint("name the peer, or let any be taken")
	}
	return nil
}
