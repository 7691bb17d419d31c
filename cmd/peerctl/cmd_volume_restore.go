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

type restoreFlags struct {
	peer, file, digest string
	size               int64
}

func cmdVolumeRestore(a *app) *cobra.Command {
	var f restoreFlags
	cmd := &cobra.Command{
		Use:   "restore NAME",
		Short: "Make a volume of a backup",
		Long: `Makes a new volume and fills it with the files of an archive, from stdin or with
--file from a file: tar under gzip, as "volume backup" writes it. Unless all of it
arrives and fits, there is no volume.`,
		Example: `  peerctl volume restore data --peer bob < data.tar.gz
  peerctl volume restore data --peer carol --size 2G --file data.tar.gz`,
		Args:              takes("a NAME for the volume"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.restoreVolume(cmd.Context(), args[0], f) },
	}
	cmd.Flags().StringVar(&f.peer, "peer", "", "`NAME` of the peer that is to have it (default: the only one)")
	completeFlag(cmd, "peer", a.completePeerFlag("self"))
	sizeVar(cmd.Flags(), &f.size, "size", "of the volume (default "+formatSize(mesh.DefaultVolume)+")")
	cmd.Flags().StringVar(&f.file, "file", "", "read the archive from `FILE` (default: stdin)")
	cmd.Flags().StringVar(&f.digest, "digest", "", "take only the archive with this `DIGEST`, sha256:…")
	return cmd
}

func (a *app) restoreVolume(ctx context.Context, name string, f restoreFlags) error {
	if f.digest != "" && !mesh.ValidDigest(f.digest) {
		return usagef("--digest %s is not sha256: and 64 hex digits", f.digest)
	}
	if why := (mesh.VolumeMount{Name: name, Target: "/x", Size: f.size}).Problem(); why != "" {
		return usagef("%s", why)
	}
	in, total := a.in, int64(0)
	if f.file != "" {
		file, err := os.Open(f.file)
		if err != nil {
			return usagef("cannot read %s: %s", f.file, root(err))
		}
		defer file.Close()
		if st, err := file.Stat(); err == nil {
			total = st.Size()
		}
		in = file
	} else if t, ok := in.(*os.File); ok && term.IsTerminal(int(t.Fd())) {
		return usagef("there is no archive on stdin").hint("peerctl volume restore %s --file FILE", name)
	}
	return a.withClient(func(c *control.Client) error {
		p := a.progress()
		r := io.TeeReader(in, &counter{on: func(n int64) { p.bytes("restoring "+name, n, total) }}) // nobody closes the input
		got, err := c.RestoreVolume(ctx, control.RestoreVolume{Peer: f.peer, Name: name, Size: f.size, Digest: f.digest}, r)
		p.clear()
		if err != nil && ctx.Err() != nil {
			return mesh.Errorf(mesh.Canceled, "interrupted; there is no volume %s", name)
		}
		if err != nil {
			return err
		}
		if a.json() {
			return a.printJSON(got)
		}
		a.noteArchive("restored", name+onVolumePeer(got.Volume), got.Archive)
		return a.println(string(got.Volume.ID))
	})
}
