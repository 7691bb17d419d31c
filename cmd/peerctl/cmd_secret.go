package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"peercompute/pkg/control"
)

func cmdSecret(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "secret",
		Short: "Give containers passwords and keys as files in memory",
		Long: `A secret is kept by the peer whose containers get it. It goes there encrypted to that
peer's key, and lies there encrypted; nothing tells it again: neither inspect nor logs
nor the audit log. A container gets it as a file of /run/secrets, in memory, which only
its program may read: peerctl deploy … --secret NAME. The owner of that machine can
read it, as all that runs there.`,
		Example: `  peerctl secret set db-password --peer bob < password.txt
  peerctl secret ls --peer bob
  peerctl secret rm db-password --peer bob`,
		Args: cobra.ArbitraryArgs,
		RunE: onlySubcommands,
	}
	cmd.AddCommand(cmdSecretSet(a), cmdSecretLs(a), cmdSecretRm(a))
	return cmd
}

func (a *app) secretPeerFlag(cmd *cobra.Command, peer *string) {
	cmd.Flags().StringVar(peer, "peer", "", "the `NAME` of the peer that keeps it (default: this machine)")
	completeFlag(cmd, "peer", a.completePeerFlag())
}

// typedSecret reads the value from the input: as it is, or asked for on a terminal.
func (a *app) typedSecret(name string) ([]byte, error) {
	f, ok := a.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return control.ReadSecret(a.in)
	}
	fmt.Fprintf(a.err, "value of %s: ", clean(name))
	value, err := term.ReadPassword(int(f.Fd()))
	fmt.Fprintln(a.err)
	return value, err
}

func (a *app) listSecrets(all []control.Secret) error {
	if a.json() {
		return a.printJSON(all)
	}
	if len(all) == 0 {
		a.note("no secrets; set one with: peerctl secret set NAME")
		return nil
	}
	t := newTable(a.out, "NAME", "PEER", "SET", "USED BY")
	for _, s := range all {
		t.row(s.Name, s.Peer, s.Set.Local().Format("2006-01-02 15:04"), strings.Join(s.Used, ", "))
	}
	return t.flush()
}
