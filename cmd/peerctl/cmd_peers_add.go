package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

func cmdPeersAdd(a *app) *cobra.Command {
	var f grantFlags
	var name string
	var addrs []string
	cmd := &cobra.Command{
		Use:   "add ID|MULTIADDR",
		Short: "Trust a peer, and say where it is and what it may do here",
		Long: `Adds a peer to the trust list, given by its ID or by one address that ends in
/p2p/ID; the peer's own "peerctl whoami" prints both. Without --allow it is known
and can be reached, but may do nothing here.`,
		Example: `  peerctl peers add /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW… --name bob
  peerctl peers add 12D3KooW… --name alice --addr /dns4/alice.example.org/tcp/4001 \
      --allow deploy,observe --cpus 2 --memory 1G --max-workloads 10 --requests 60/min`,
		Args: takes("the ID of a peer, or an address that ends in /p2p/ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			add, err := newPeer(args[0], addrs)
			if err != nil {
				return err
			}
			add.Name, add.Change = name, f.change(cmd)
			return a.addPeer(cmd.Context(), add)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags := cmd.Flags()
	flags.StringVar(&name, "name", "", "local `NAME` for it: a-z, 0-9 and - (default: from its ID)")
	flags.StringArrayVar(&addrs, "addr", nil, "`MULTIADDR` where it is reached; repeatable")
	addGrantFlags(cmd, &f)
	return cmd
}

func (a *app) addPeer(ctx context.Context, add control.AddPeer) error {
	if add.Name != "" && !mesh.ValidLabel(add.Name) {
		return usagef("--name %s: names are a-z, 0-9 and inner -, at most %d characters", add.Name, mesh.MaxName)
	}
	return a.withClient(func(c *control.Client) error {
		p, err := c.AddPeer(ctx, add)
		if err != nil {
			return err
		}
		if err := a.showPeer(p); err != nil {
			return err
		}
		a.note("trust goes one way: to run work on %s, its owner adds this machine there (peerctl whoami prints its address)", p.Name)
		return nil
	})
}

// newPeer reads an ID, or an address that names it. Addresses may repeat the ID,
// but must not name another.
func newPeer(who string, addrs []string) (control.AddPeer, error) {
	id := who
	if strings.HasPrefix(who, "/") {
		_, named := splitAddr(who)
		if named == "" {
			return control.AddPeer{}, usagef("%s does not say which peer is there", who).
				hint("the address must end in /p2p/ID; the other machine prints its own with: peerctl whoami")
		}
		id, addrs = named, append([]string{who}, addrs...)
	}
	if _, err := mesh.ParsePeerID(id); err != nil {
		return control.AddPeer{}, usageError{mesh.AsError(err)}
	}
	add := control.AddPeer{ID: id}
	for _, addr := range addrs {
		if !strings.HasPrefix(addr, "/") {
			return add, usagef("--addr %s is not an address", addr).hint("addresses look like /ip4/192.0.2.7/tcp/4001")
		}
		where, named := splitAddr(addr)
		if named != "" && named != id {
			return add, usagef("%s is the address of another peer than %s", addr, id)
		}
		if where != "" {
			add.Addrs = append(add.Addrs, where)
		}
	}
	return add, nil
}

// splitAddr takes a final /p2p/ID off an address. One further in belongs to a
// relay on the way.
func splitAddr(addr string) (where, id string) {
	addr = strings.TrimRight(addr, "/")
	i := strings.LastIndex(addr, "/p2p/")
	if i < 0 || strings.Contains(addr[i+len("/p2p/"):], "/") {
		return addr, ""
	}
	return addr[:i], addr[i+len("/p2p/"):]
}
