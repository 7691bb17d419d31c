package main

import (
	"github.com/spf13/cobra"
)

func cmdCompletion(a *app) *cobra.Command {
	shells := []cobra.Completion{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print a script that completes commands, peers and workloads",
		Example: `  source <(peerctl completion bash)
  peerctl completion zsh > "${fpath[1]}/_peerctl"
  peerctl completion fish > ~/.config/fish/completions/peerctl.fish`,
		Args:      takes("the name of a shell"),
		ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.out, true)
			case "zsh":
				return root.GenZshCompletion(a.out)
			case "fish":
				return root.GenFishCompletion(a.out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.out)
			}
			return usagef("no completion for %q", args[0]).hint("choose one of bash, zsh, fish, powershell")
		},
	}
}
