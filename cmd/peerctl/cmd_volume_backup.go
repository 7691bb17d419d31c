package main

import (
	"context"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

func cmdVolumeBackup(a *app) *cobra.Command {
	var peer, out string
	cmd := &cobra.Command{
		Use:   "backup VOLUME",
		Short: "Write an archive of a volume's files",
		Long: `Writes an archive of a volume's files to stdout, or with --out to a file: tar under
gzip, which tar xzf reads too. Nothing may run on the volume meanwhile, so that the
archive is of one moment. Permissions and times are in it; sockets, pipes and extended
attributes are not. Its digest is told on stderr: "volume restore --digest" holds an
archive to it.`,
		Example: `  peerctl volume backup data --peer bob > data.tar.gz
  peerctl volume backup data --peer bob --out data.tar.gz -o json`,
		Args:              takes("a VOLUME (its name or the start of its ID)"),
		ValidArgsFunction: a.completeVolumes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.backupVolume(cmd.Context(), args[0], peer, out)
		},
	}
	a.volumePeerFlag(cmd, &peer)
	cmd.Flags().StringVar(&out, "out", "", "write the archive to `FILE`, which must not be there yet")
	return cmd
}

func (a *app) backupVolume(ctx context.Context, ref, peer, out string) error {
	if out == "" {
		if a.json() {
			return usagef("with -o json stdout is taken, so the archive needs a file").hint("peerctl volume backup %s --out FILE -o json", ref)
		}
		if f, ok := a.out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			return usagef("an archive is nothing for a terminal").hint("peerctl volume backup %s > %s.tar.gz", ref, ref)
		}
	} else if err := absent(out); err != nil {
		return err
	}
	return a.withClient(func(c *control.Client) error {
		p := a.progress()
		var got control.Archive
		write := func(w io.Writer) (err error) {
			got, err = c.BackupVolume(ctx, ref, peer, io.MultiWriter(w, &counter{on: func(n int64) { p.bytes("backing up "+ref, n, 0) }}))
			p.clear()
			if err != nil && ctx.Err() != nil {
				return mesh.Errorf(mesh.Canceled, "interrupted; the archive is not whole")
			}
			return err
		}
		if out == "" {
			if err := write(a.out); err != nil {
				return err
			}
		} else if _, err := writeBackup(out, func(f *os.File) (int64, error) { err := write(f); return got.Size, err }); err != nil {
			return err
		}
		a.noteArchive("backed up", ref, got)
		switch {
		case a.json():
			return a.printJSON(got)
		case out != "":
			return a.println(out)
		}
		return nil
	})
}

func (a *app) noteArchive(what, name string, got control.Archive) {
	a.note("%s %s: %d files and directories, %s; the archive is %s, %s", what, name, got.Entries, formatSize(got.Bytes), formatSize(got.Size), got.Digest)
	if got.Left > 0 {
		a.note("left out: %s", plural(got.Left, "special file"))
	}
}
