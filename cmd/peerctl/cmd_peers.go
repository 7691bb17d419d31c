package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdPeers(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "peers",
		Short: "Decide which peers are trusted, and with what",
		Long: `The trust list says whose signed requests this machine accepts, and within which
limits. Trust goes one way: what you allow a peer here gives you nothing there.`,
		Example: `  peerctl peers ls
  peerctl peers add /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW… --name alice
  peerctl peers allow alice --allow deploy,observe --cpus 2 --memory 1G --max-workloads 10`,
		Args: cobra.ArbitraryArgs,
		RunE: onlySubcommands,
	}
	cmd.AddCommand(cmdPeersInvite(a), cmdPeersJoin(a), cmdPeersInvites(a), cmdPeersUninvite(a),
		cmdPeersKnock(a), cmdPeersPending(a), cmdPeersApprove(a), cmdPeersDeny(a), cmdPeersDiscover(a),
		cmdPeersAdd(a), cmdPeersLs(a), cmdPeersShow(a), cmdPeersAllow(a), cmdPeersRemove(a))
	return cmd
}

// showPeer prints one entry of the trust list, and what it lacks to be of use.
func (a *app) showPeer(p control.Peer) error {
	if a.json() {
		return a.printJSON(fullPeer(p))
	}
	if err := a.peerTable([]control.Peer{p}); err != nil {
		return err
	}
	if missing := missingQuotas(p.Grant); len(missing) > 0 {
		a.note("note: a quota of 0 allows nothing; %s still needs %s", p.Name, strings.Join(missing, ", "))
		a.note("next: peerctl peers allow %s %s …", p.Name, missing[0])
	}
	if p.Grant.Ended {
		a.note("note: this grant has ended, %s is denied; renew it with: peerctl peers allow %s --until WHEN", p.Name, p.Name)
	}
	if slices.Contains(p.Grant.Allow, "deploy") && slices.Contains(p.Grant.Images, "any") {
		a.note("note: %s may run any image and any module here; narrow it with: peerctl peers allow %s --images …", p.Name, p.Name)
	}
	return nil
}

func (a *app) peerTable(peers []control.Peer) error {
	t := newTable(a.out, "NAME", "ID", "ALLOW", "QUOTAS", "STATE", "SEEN", "PATH", "FREE")
	for _, p := range peers {
		t.row(p.Name, shortPeer(p.ID), strings.Join(p.Grant.Allow, ","), describeQuotas(p.Grant),
			describeState(p.Liveness), a.seen(p.Liveness), describePath(p.Liveness), describeFree(p.Liveness.Free))
	}
	return t.flush()
}

// fullPeer makes every list one, so that programs need not look for null.
func fullPeer(p control.Peer) control.Peer {
	fill(&p.Addrs)
	fill(&p.Grant.Allow)
	fill(&p.Grant.Images)
	fill(&p.Grant.Egress)
	fill(&p.Grant.SignedBy)
	return p
}
