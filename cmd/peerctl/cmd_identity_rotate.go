package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

func cmdIdentityRotate(a *app) *cobra.Command {
	r := control.Rotate{Overlap: 24 * time.Hour}
	var yes bool
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Give this node a new key, and tell its peers",
		Long: `Makes a new key, which the old one names as its successor and which agrees, and
tells every trusted peer. A peer that is told moves to the new key all that the old
one had there: grant, quotas, workloads, public names. It takes the old key too
until the overlap ends. Peers that are away are told when they come back.

With --compromised there is no overlap: whoever hears of it denies the old key at
once. Whichever successor of a key a peer hears of first counts there, so be quick;
a peer that heard of a thief's first says so, and has to remove and invite anew.`,
		Example: `  peerctl identity rotate
  peerctl identity rotate --overlap 1h --yes
  peerctl identity rotate --compromised`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if r.Compromised && cmd.Flags().Changed("overlap") {
				return usagef("--compromised has no --overlap: the old key is denied at once")
			}
			return a.rotate(cmd.Context(), r, yes)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags := cmd.Flags()
	flags.DurationVar(&r.Overlap, "overlap", r.Overlap, "how long peers take the old key too, from 1m to 24h")
	flags.BoolVar(&r.Compromised, "compromised", false, "the old key may be in other hands: no overlap")
	flags.BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func (a *app) rotate(ctx context.Context, r control.Rotate, yes bool) error {
	return a.withClient(func(c *control.Client) error {
		who, err := c.Whoami(ctx)
		if err != nil {
			return err
		}
		a.note("this node's ID changes from %s to a new one:", shortPeer(who.ID))
		a.note("  - peers that are told move its grants, workloads and public names to the new one; URLs stay as they are")
		a.note("  - its network starts again, about a second; workloads go on, jobs in the foreground are cut")
		a.note("  - invites that are open here, and addresses with the old ID that were given out, lead nowhere any more")
		if r.Compromised {
			a.note("  - peers that are told deny the old key at once")
		}
		if err := a.confirm("change the key?", yes); err != nil {
			return err
		}
		out, err := c.Rotate(ctx, r)
		if err != nil {
			return err
		}
		if err := a.awaitID(ctx, c, out.New); err != nil {
			return err
		}
		if a.json() {
			fill(&out.Told)
			fill(&out.Waiting)
			return a.printJSON(out)
		}
		if len(out.Told) > 0 {
			a.note("told: %s", strings.Join(out.Told, ", "))
		}
		for _, w := range out.Waiting {
			a.note("not told yet: %s (%s)", w.Peer, w.Reason)
		}
		if len(out.Waiting) > 0 {
			a.note("they are tried again for a day, and ask by themselves when they dial this node")
		}
		return a.println(out.New.String())
	})
}

const restartTime = 30 * time.Second

// awaitID waits until the node answers under its new ID.
func (a *app) awaitID(ctx context.Context, c *control.Client, id mesh.PeerID) error {
	ctx, cancel := context.WithTimeout(ctx, restartTime)
	defer cancel()
	for {
		who, err := c.Whoami(ctx)
		if err == nil && who.ID == id {
			return nil
		}
		t := time.NewTimer(100 * time.Millisecond)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return mesh.Errorf(mesh.Timeout, "the key has changed, but the node does not answer under it yet").
				WithHint("look with: peerctl whoami; its log says what keeps it").Because(err)
		}
	}
}

// confirm asks the person, unless the command line has answered already.
func (a *app) confirm(question string, yes bool) error {
	if yes {
		return nil
	}
	f, ok := a.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return usagef("nobody is there to be asked: %s", question).hint("answer on the command line: --yes")
	}
	a.note("%s [y/N]", question)
	line, err := bufio.NewReader(io.LimitReader(a.in, 100)).ReadString('\n')
	if answer := strings.ToLower(strings.TrimSpace(line)); err == nil && (answer == "y" || answer == "yes") {
		return nil
	}
	return mesh.Errorf(mesh.Canceled, "nothing was changed")
}
