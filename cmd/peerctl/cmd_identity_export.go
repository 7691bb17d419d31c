package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

func cmdIdentityExport(a *app) *cobra.Command {
	var out, passphrase string
	cmd := &cobra.Command{
		Use:   "export --out FILE",
		Short: "Write an encrypted backup of this node's key and trust list",
		Long: `Writes a backup that only its passphrase opens, in the format of age (age -d reads
it too). It holds the node's key, how that changed, and the trust list. Workloads,
jobs, receipts, invites, published names and the configuration are not in it.

peerd restore makes a node of it. Who has file and passphrase is this node to its
peers. A backup knows nothing of later changes: export again after removing a peer
or changing the key.`,
		Example: `  peerctl identity export --out alice.backup
  peerctl identity export --out alice.backup --passphrase-file secret.txt`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				return usagef("no file is named for the backup").hint("peerctl identity export --out FILE")
			}
			return a.exportIdentity(cmd.Context(), out, passphrase)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().StringVar(&out, "out", "", "write the backup to `FILE`, which must not be there yet")
	cmd.Flags().StringVar(&passphrase, "passphrase-file", "", "read the passphrase from `FILE`, or from stdin if it is - (default: ask)")
	return cmd
}

// exported is what the command prints.
type exported struct {
	File  string `json:"file"`
	Bytes int64  `json:"bytes"`
}

func (a *app) exportIdentity(ctx context.Context, out, passphrase string) error {
	if err := absent(out); err != nil {
		return err
	}
	secret, err := a.newPassphrase(passphrase)
	if err != nil {
		return err
	}
	if err := control.CheckPassphrase(secret); err != nil {
		return err
	}
	return a.withClient(func(c *control.Client) error {
		n, err := writeBackup(out, func(f *os.File) (int64, error) { return c.Export(ctx, control.Export{Passphrase: secret}, f) })
		if err != nil {
			return err
		}
		a.note("without the passphrase nobody can read it, nor can you")
		if a.json() {
			return a.printJSON(exported{out, n})
		}
		return a.println(out)
	})
}

func absent(path string) error {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return mesh.Errorf(mesh.Invalid, "cannot write %s", path).Because(err)
	}
	return mesh.Errorf(mesh.Conflict, "%s is there already; nothing is overwritten", path).WithHint("name another file: --out FILE")
}

// writeBackup makes a file of mode 0600 that is whole and on disk, or none.
func writeBackup(path string, fill func(*os.File) (int64, error)) (n int64, err error) {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, ".backup-*") // mode 0600
	if err != nil {
		return 0, mesh.Errorf(mesh.Invalid, "cannot write into %s", dir).Because(err)
	}
	defer os.Remove(tmp.Name())
	n, err = fill(tmp)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return n, err
	}
	// Unlike a rename, a link never replaces; but some file systems, such as those of
	// memory sticks, have none.
	if err = os.Link(tmp.Name(), path); err != nil {
		if err := absent(path); err != nil {
			return n, err
		}
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil || runtime.GOOS == "windows" { // which has no fsync for directories
		return n, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return n, err
	}
	return n, errors.Join(d.Sync(), d.Close())
}

// newPassphrase reads the passphrase from a file, or asks the person twice.
func (a *app) newPassphrase(file string) (string, error) {
	if file != "" {
		return control.ReadPassphrase(file, a.in)
	}
	f, ok := a.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return "", usagef("nobody is there to be asked for a passphrase").hint("name a file: --passphrase-file FILE   (- is stdin)")
	}
	var typed [2]string
	for i, question := range []string{"passphrase for the backup: ", "once more: "} {
		fmt.Fprint(a.err, question)
		p, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(a.err)
		if err != nil {
			return "", err
		}
		if typed[i] = string(p); i == 0 {
			if err := control.CheckPassphrase(typed[0]); err != nil {
				return "", err
			}
		}
	}
	if typed[0] != typed[1] {
		return "", mesh.Errorf(mesh.Invalid, "the two passphrases differ; nothing was written")
	}
	return typed[0], nil
}
