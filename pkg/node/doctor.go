package node

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"peercompute/pkg/control"
	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
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
		out = append(out, n.strayVolumes(ctx, d)...)
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

// strayVolumes tells of files of volumes that nothing here knows: what was there before
// peerd began anew (--new-state), which is neither counted nor ever removed by itself.
func (n *Node) strayVolumes(ctx context.Context, d driver.Volumes) []control.Check {
	files, err := d.VolumeFiles(ctx) // first: a volume's record is there before its file
	if err == nil {
		err = n.m.Store.View(func(tx *store.Tx) error {
			_, err := volumesIn(tx, func(v volumeRecord) bool {
				delete(files, v.ID)
				return false
			})
			return err
		})
	}
	if err != nil {
		return []control.Check{{Name: "volume files", State: control.CheckWarning, Detail: "cannot be listed: " + mesh.AsError(err).Msg, Fix: "see that peerd may read its home"}}
	}
	if len(files) == 0 {
		return nil
	}
	var paths []string
	var bytes int64
	for _, f := range files {
		paths = append(paths, f.Path)
		bytes += f.Bytes
	}
	slices.Sort(paths)
	more := ""
	const most = 8
	if len(paths) > most {
		more = fmt.Sprintf(" and %d more beside them", len(paths)-most)
		paths = paths[:most]
	}
	return []control.Check{{
		Name: "volume files", State: control.CheckWarning,
		Detail: fmt.Sprintf("%d with %d MiB belong to no volume that is known here, as after --new-state: %s%s", len(files), bytes>>20, strings.Join(paths, " "), more),
		Fix:    "look into one with: sudo mount -o loop,ro,noexec,nosuid,nodev FILE /mnt   (its files were made by other people's programs); remove what nobody wants with: sudo rm FILE",
	}}
}
