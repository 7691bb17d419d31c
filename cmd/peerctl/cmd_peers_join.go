package main

import (
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

// maxTokenText bounds what join reads from its input, in bytes.
const maxTokenText = 16 << 10

func cmdPeersJoin(a *app) *cobra.Command {
	var f grantFlags
	var j control.JoinInvite
	cmd := &cobra.Command{
		Use:   "join TOKEN|-",
		Short: "Join by an invite, so that both machines trust each other",
		Long: `Trusts the machine that made the token, and is trusted by it, in one step. What it
may do here is nothing, unless --allow says more. With - the token is read from
the standard input, which keeps it out of the list of processes.`,
		Example: `  peerctl peers join peerjoin1-pQEB…
  peerctl peers join - < token.txt
  peerctl peers join peerjoin1-pQEB… --name bob --allow deploy`,
		Args: takes("a TOKEN, or - to read it from the standard input"),
		RunE: func(cmd *cobra.Command, args []string) error {
			j.Token, j.Change = args[0], f.change(cmd)
			if j.Token == "-" {
				b, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxTokenText))
				if err != nil {
					return err
				}
				j.Token = strings.TrimSpace(string(b))
			}
			return a.withClient(func(c *control.Client) error {
				p, err := c.Join(cmd.Context(), j)
				if err != nil {
					return err
				}
				if err := a.showPeer(p); err != nil {
					return err
				}
				a.note("you and %s trust each other now; try: peerctl deploy FILE.wasm --peer %s", p.Name, p.Name)
				return nil
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags := cmd.Flags()
	flags.StringVar(&j.Name, "name", "", "local `NAME` for the one who invited (default: as it calls itself)")
	flags.StringVar(&j.As, "as", hostLabel(), "what this machine calls itself")
	addGrantFlags(cmd, &f)
	return cmd
}

// hostLabel is this machine's name as a label; empty if it has none.
func hostLabel() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	name, _, _ = strings.Cut(strings.ToLower(name), ".")
	return labelOf(name)
}
