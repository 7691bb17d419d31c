package main

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdPortForward(a *app) *cobra.Command {
	var peer string
	cmd := &cobra.Command{
		Use:   "port-forward WORKLOAD [LOCAL:REMOTE]",
		Short: "Reach a port of a workload on this machine",
		Long: `Listens on 127.0.0.1:LOCAL and carries each connection to the port REMOTE of the
workload, wherever it runs, until Ctrl-C. LOCAL 0 or none is a free port that is
chosen; without REMOTE it is the port that the workload was deployed with. A
container can be reached on any of its ports, a WASM guest on its one (80).

Each connection is a signed request of its own, and counts against the requests
a minute that the peer grants. Where it listens is printed once it does.`,
		Example: `  peerctl port-forward web
  peerctl port-forward web 8080:80
  peerctl port-forward db 0:5432 --peer bob`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				_, _, err := parsePorts(args[1])
				return err
			}
			return takes("a WORKLOAD (its name or the start of its ID)")(cmd, args)
		},
		ValidArgsFunction: a.completeWorkloads,
		RunE: func(cmd *cobra.Command, args []string) error {
			ports := append(args, "")[1]
			return a.portForward(cmd.Context(), args[0], peer, ports)
		},
	}
	a.peerFlag(cmd, &peer)
	return cmd
}

// parsePorts reads LOCAL:REMOTE, either of which may be missing; 0 stands for that.
func parsePorts(s string) (local, remote uint16, err error) {
	near, far, _ := strings.Cut(s, ":")
	read := func(s string) (uint16, error) {
		if s == "" || s == "0" {
			return 0, nil
		}
		return parsePort(s)
	}
	local, errLocal := read(near)
	remote, errRemote := read(far)
	if errors.Join(errLocal, errRemote) != nil {
		return 0, 0, usagef("%q is not LOCAL:REMOTE", s).hint("ports are numbers up to 65535, as in 8080:80; LOCAL 0 is any that is free")
	}
	return local, remote, nil
}

// forwarded is what -o json prints once the port is open.
type forwarded struct {
	Address  string `json:"address"` // 127.0.0.1:PORT
	Workload string `json:"workload"`
	Peer     string `json:"peer"`
	Port     uint16 `json:"port"` // of the workload; 0 = its own
}

func (a *app) portForward(ctx context.Context, ref, peer, ports string) error {
	local, remote, err := parsePorts(ports)
	if err != nil {
		return err
	}
	return a.withClient(func(c *control.Client) error {
		w, err := c.Workload(ctx, ref, peer)
		if err != nil {
			return err
		}
		f, err := c.ListenForward(local, w.ID, w.Peer, remote)
		if err != nil {
			return err
		}
		defer f.Close()
		if a.json() {
			err = a.printJSON(forwarded{f.Addr(), w.Name, w.Peer, remote})
		} else {
			err = a.println(f.Addr())
		}
		if err != nil {
			return err
		}
		a.note("forwards to %s on %s; Ctrl-C ends it", w.Name, w.Peer)
		return f.Run(ctx, func(err error) { a.report(describe(err)) })
	})
}
