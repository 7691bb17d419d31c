package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdPeersKnock(a *app) *cobra.Command {
	var f grantFlags
	var k control.KnockAt
	var long time.Duration
	cmd := &cobra.Command{
		Use:   "knock ADDRESS|on|off",
		Short: "Ask another machine for trust; or let strangers ask for it here",
		Long: `With an ADDRESS: asks the machine there to trust this one, and waits until its
owner answers, ten minutes at most. Both persons see a fingerprint and compare it,
say on the phone; then the other approves. The other may do nothing here, unless
--allow says more.

With "on": strangers may ask here for a while; see who does with "peerctl peers
pending". With "off": no longer. It is off unless you say otherwise.`,
		Example: `  peerctl peers knock /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW… --name bob
  peerctl peers knock on --for 15m
  peerctl peers knock off`,
		Args: takes("an ADDRESS that ends in /p2p/ID, or on or off"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch args[0] {
			case "on":
				return a.letKnock(cmd, long)
			case "off":
				return a.letKnock(cmd, 0)
			}
			if !strings.HasPrefix(args[0], "/") {
				return usagef("%q is no address, and not on or off", args[0]).
					hint("the address looks like /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…; the other machine prints its own with: peerctl whoami")
			}
			if cmd.Flags().Changed("for") {
				return usagef("--for says how long strangers may knock here: peerctl peers knock on --for %s", long)
			}
			k.Addr, k.Change = args[0], f.change(cmd)
			return a.knock(cmd, k)
		},
		ValidArgsFunction: cobra.FixedCompletions([]cobra.Completion{"on", "off"}, cobra.ShellCompDirectiveNoFileComp),
	}
	flags := cmd.Flags()
	flags.StringVar(&k.Name, "name", "", "local `NAME` for the other machine (default: from its ID)")
	flags.StringVar(&k.As, "as", hostLabel(), "what this machine calls itself")
	long = time.Hour
	flags.Var(&value[time.Duration]{to: &long, parse: parseDuration, kind: "DURATION", text: "1h"}, "for", "with on: how long, at most 24h")
	addGrantFlags(cmd, &f)
	return cmd
}

func (a *app) letKnock(cmd *cobra.Command, d time.Duration) error {
	return a.withClient(func(c *control.Client) error {
		k, err := c.LetKnock(cmd.Context(), d)
		if err != nil {
			return err
		}
		if a.json() {
			fill(&k.Pending)
			return a.printJSON(k)
		}
		if !k.Open {
			a.note("strangers may not knock here")
			return nil
		}
		a.note("strangers may knock here until %s; see who does with: peerctl peers pending", k.Until.Local().Format("2006-01-02 15:04"))
		a.note("on the other machine: peerctl peers knock ADDRESS   (this machine's addresses: peerctl whoami)")
		return nil
	})
}

func (a *app) knock(cmd *cobra.Command, k control.KnockAt) error {
	p := a.progress()
	stop := func() {}
	defer func() { stop() }()
	return a.withClient(func(c *control.Client) error {
		peer, err := c.Knock(cmd.Context(), k, func(ev control.KnockEvent) {
			if a.json() {
				if ev.Peer != nil {
					full := fullPeer(*ev.Peer)
					ev.Peer = &full
				}
				if ev.Error == nil {
					_ = json.NewEncoder(a.out).Encode(ev)
				}
				return
			}
			if ev.Waiting {
				a.note("Compare this with what the other person sees (peerctl peers pending there):")
				a.note("    %s", ev.Fingerprint)
				a.note("If it is the same, they approve with: peerctl peers approve %s", ev.Fingerprint)
				stop = a.countDown(p, ev.Until)
			}
		})
		stop()
		p.clear()
		if err != nil || a.json() {
			return err
		}
		if err := a.showPeer(peer); err != nil {
			return err
		}
		a.note("%s trusts this machine now; try: peerctl deploy FILE.wasm --peer %s", peer.Name, peer.Name)
		return nil
	})
}

// countDown shows until when is waited, on a terminal second by second. What it
// returns ends it, and may be called twice.
func (a *app) countDown(p *progress, until time.Time) (stop func()) {
	left := func() string { return roughly(until.Sub(a.now())) }
	if !p.live {
		p.line(fmt.Sprintf("waiting for the other side's answer, up to %s", left()))
		return func() {}
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			p.line(fmt.Sprintf("waiting for the other side's answer, %s left", left()))
			select {
			case <-tick.C:
			case <-end:
				return
			}
		}
	}()
	done := false
	return func() {
		if !done {
			done = true
			close(end)
			<-ended
		}
	}
}
