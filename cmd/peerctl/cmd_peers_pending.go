package main

import (
	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdPeersPending(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "pending",
		Short: "List the strangers who knock and wait for your answer",
		Long: `Lists who asks to be trusted here, as long as they wait. A name is only what they
call themselves: compare the fingerprint with the person who knocks, say on the
phone, before you approve.`,
		Example: "  peerctl peers pending",
		Args:    takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(func(c *control.Client) error {
				k, err := c.Knocks(cmd.Context())
				if err != nil {
					return err
				}
				if a.json() {
					fill(&k.Pending)
					return a.printJSON(k)
				}
				return a.showPending(k)
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}

func (a *app) showPending(k control.Knocking) error {
	switch {
	case !k.Open && len(k.Pending) == 0:
		a.note("strangers may not knock here; let them for a while with: peerctl peers knock on")
		return nil
	case len(k.Pending) == 0:
		a.note("nobody knocks; strangers may until %s", k.Until.Local().Format("2006-01-02 15:04"))
		return nil
	}
	t := newTable(a.out, "FINGERPRINT", "SAYS IT IS", "ID", "FROM", "WAITS FOR")
	for _, p := range k.Pending {
		t.row(p.Fingerprint, p.Name, shortPeer(p.ID), p.Remote, roughly(p.Until.Sub(a.now()))+" more")
	}
	if err := t.flush(); err != nil {
		return err
	}
	a.note("next: compare the fingerprint, then: peerctl peers approve FINGERPRINT --allow …   (or: peerctl peers deny FINGERPRINT)")
	return nil
}
