package node

import (
	"context"
	"fmt"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

// checkup looks at what runs workloads here, and at what carries them to the web.
func (n *Node) checkup(ctx context.Context) []control.Check {
	var out []control.Check
	for _, r := range n.runtimes(ctx) {
		c := control.Check{Name: string(r.Kind), State: control.CheckOK, Detail: r.Detail}
		if !r.Ready {
			c.State, c.Fix = control.CheckWarning, "start the engine, and see that peerd may use its socket (sudo systemctl start docker); without one, WASM runs all the same"
		}
		out = append(out, c)
	}
	if d, err := n.volumeDriver(); err == nil {
		c := control.Check{Name: "volumes", State: control.CheckOK, Detail: "can be made"}
		if err := d.VolumesReady(ctx); err != nil {
			e := mesh.AsError(err)
			c.State, c.Detail, c.Fix = control.CheckWarning, e.Msg, e.Hint
			if c.Fix == "" {
				c.Fix = "containers run without volumes all the same"
			}
		}
		out = append(out, c)
	}
	for _, w := range n.cfg.Warnings {
		out = append(out, control.Check{Name: "machine", State: control.CheckWarning, Detail: w, Fix: "update what it names, or live with it: it is told, not hidden"})
	}
	lending := control.Check{Name: "lending", State: control.CheckOK, Detail: "open"}
	if s := n.lendState(); !s.Open {
		lending.Detail = "closed: " + s.Reason
		if s.Paused {
			lending.State, lending.Fix = control.CheckWarning, "peerctl resume"
		}
	}
	out = append(out, lending)
	_, tunnels := n.gateways.report()
	down := 0
	for _, t := range tunnels {
		if !t.Up {
			down++
			out = append(out, control.Check{
				Name: "gateway", State: control.CheckProblem, Detail: t.Peer + " is not connected: " + t.Detail,
				Fix: "is peergate running there, and does it trust this machine with --allow publish?",
			})
		}
	}
	if up := len(tunnels) - down; up > 0 {
		out = append(out, control.Check{Name: "gateway", State: control.CheckOK, Detail: fmt.Sprintf("%d connected", up)})
	}
	return out
}
