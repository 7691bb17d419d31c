package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"peercompute/pkg/control"
	"peercompute/pkg/member"
	"peercompute/pkg/mesh"
)

func restoreCommand(stdin *os.File, stderr io.Writer) *cobra.Command {
	var home, passphrase string
	c := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make a home from a backup that peerctl identity export wrote",
		Long: `Makes a home from an encrypted backup: the node's key and its trust list.
Workloads, jobs, receipts, invites, published names and the configuration are not in
a backup. Requests that were signed for the former node are void, and peers notice
that its state is a new one.

The original and the restored node must not run at the same time: peers raise an
alarm for two nodes with one key. If the key may be in other hands, start the
restored node and run: peerctl identity rotate --compromised`,
		Example: "  peerd restore alice.backup --home ~/peer\n  peerd restore alice.backup --home ~/peer --passphrase-file -",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if home == "" {
				if home, err = control.DefaultHome(); err != nil {
					return err
				}
			}
			if home, err = filepath.Abs(home); err != nil {
				return err
			}
			data, err := readBackup(args[0])
			if err != nil {
				return err
			}
			secret, err := askPassphrase(passphrase, stdin, stderr)
			if err != nil {
				return err
			}
			r, err := member.Restore(c.Context(), home, data, secret, time.Now)
			if err != nil {
				return err
			}
			program := "peerd"
			if r.Role == "gateway" {
				program = "peergate"
			}
			fmt.Fprintf(stderr, "restored from a backup of %s, with %d peers: start it with: %s run --home %s\n", r.Made.Format(time.RFC3339), r.Peers, program, home)
			fmt.Fprintln(stderr, "warning: peers that were removed since that time are trusted again: look through peerctl peers ls")
			fmt.Fprintln(stderr, "warning: the original and this one must not run at the same time; peers raise an alarm if they do")
			fmt.Fprintln(c.OutOrStdout(), r.Node)
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&home, "home", "", "the home directory to make, empty or not there (default: as for run)")
	f.StringVar(&passphrase, "passphrase-file", "", "read the passphrase from this file, or from stdin if it is - (default: ask)")
	return c
}

func readBackup(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, mesh.Errorf(mesh.Invalid, "cannot read the backup").Because(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, control.MaxBackup+1))
	if err != nil {
		return nil, mesh.Errorf(mesh.Invalid, "cannot read the backup").Because(err)
	}
	return data, nil // one byte too many is refused where it is opened
}

func askPassphrase(file string, stdin *os.File, stderr io.Writer) (string, error) {
	if file != "" {
		return control.ReadPassphrase(file, stdin)
	}
	if !term.IsTerminal(int(stdin.Fd())) {
		return "", mesh.Errorf(mesh.Invalid, "nobody is there to be asked for the passphrase").WithHint("name a file: --passphrase-file FILE   (- is stdin)")
	}
	fmt.Fprint(stderr, "passphrase of the backup: ")
	p, err := term.ReadPassword(int(stdin.Fd()))
	fmt.Fprintln(stderr)
	return string(p), err
}
