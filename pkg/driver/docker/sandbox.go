package docker

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"

	"peercompute/pkg/mesh"
)

// A workload that may connect to anything gets two containers. The first is its
// sandbox: it has the network namespace, with nothing in it at first, and a program
// that waits. peerd makes the way out in there (way.go). The workload then joins the
// namespace, so that its network is there before its first instruction.

// The labels of a sandbox. What the workload may reach is told by them after a
// restart of peerd.
const (
	labelRole    = "peercompute.role"
	labelEgress  = "peercompute.egress"
	labelHosts   = "peercompute.hosts"
	labelNetwork = "peercompute.network" // all of them
	labelAliases = "peercompute.aliases"
	labelAddress = "peercompute.address"

	roleSandbox   = "sandbox"
	sandboxMemory = 16 << 20 // what the runtime needs to start anything
	sandboxPrefix = "container:"
)

// connects reports whether a workload has a network at all.
func connects(s mesh.Spec) bool {
	return s.Egress != "" && s.Egress != mesh.EgressNone || s.Network != ""
}

// sandboxName is the one name that the sandbox of a workload can have.
func sandboxName(node mesh.PeerID, id mesh.WorkloadID) string {
	return strings.Replace(containerName(node, id), "peercompute-", "peercompute-net-", 1)
}

// buildSandbox is the blueprint of the sandbox of w: a container as any, of a workload
// that needs nothing.
func buildSandbox(node mesh.PeerID, w mesh.Workload, img image, user string, addr netip.Addr) (blueprint, error) {
	b, err := build(node, mesh.Workload{ID: w.ID, Owner: w.Owner, Spec: mesh.Spec{
		Name: w.Spec.Name, Runtime: mesh.Container, Aliases: w.Spec.Aliases,
		Resources: mesh.Resources{MilliCPU: 100, Memory: sandboxMemory, Disk: 4096, PIDs: 16},
	}}, img, user, "", nil)
	if err != nil {
		return blueprint{}, err
	}
	b.name = sandboxName(node, w.ID)
	b.host.DNS = []string{resolverAddr.String()}
	for k, v := range map[string]string{
		labelRole: roleSandbox, labelEgress: string(w.Spec.Egress), labelHosts: strings.Join(w.Spec.Hosts, ","),
		labelNetwork: strings.Join(w.Spec.AllNetworks(), ","), labelAliases: strings.Join(w.Spec.Aliases, ","), labelAddress: addr.String(),
	} {
		b.config.Labels[k] = v
	}
	return b, nil
}

// openSandbox makes and starts the sandbox of w, and opens its way out.
func (d *Driver) openSandbox(ctx context.Context, e engine, w mesh.Workload) (_ *way, err error) {
	img, err := d.sandboxImage(ctx, e)
	if err != nil {
		return nil, err
	}
	y := d.newWay(w, "", netip.Addr{}, d.now())
	defer func() {
		if err != nil {
			err = errors.Join(err, y.close())
		}
	}()
	want, err := buildSandbox(d.node, w, img, userOf(w.ID, e.remaps), y.address)
	if err != nil {
		return nil, err
	}
	id, err := d.create(ctx, want)
	if err != nil {
		return nil, err
	}
	got, err := d.run(ctx, e, want, id, w)
	if err == nil {
		d.mu.Lock()
		y.sandbox = id
		d.mu.Unlock()
		err = y.open(got.NetworkSettings.SandboxKey)
	}
	if err != nil {
		return nil, errors.Join(err, d.discard(ctx, id))
	}
	return y, nil
}

// adoptSandbox opens the way out of a sandbox anew: it ended with the peerd that had
// opened it. One that cannot be used is removed, and nil returned.
func (d *Driver) adoptSandbox(ctx context.Context, got container.InspectResponse) (*way, error) {
	if y := d.openWay(got.ID); y != nil {
		return y, nil
	}
	y, err := d.reopen(got)
	if err == nil {
		return y, nil
	}
	d.log.Warn("removed a workload's network, which cannot be opened again", "workload", got.Config.Labels[labelWorkload], "err", err)
	return nil, d.removeContainer(ctx, got.ID)
}

// openWay is the way of a sandbox, if it is open.
func (d *Driver) openWay(sandbox string) *way {
	d.mu.Lock()
	defer d.mu.Unlock()
	for y := range d.ways {
		if y.sandbox == sandbox && y.net != nil {
			return y
		}
	}
	return nil
}

// listed is what a label lists.
func listed(label string) []string {
	if label == "" {
		return nil
	}
	return strings.Split(label, ",")
}

func (d *Driver) reopen(got container.InspectResponse) (*way, error) {
	if !got.State.Running {
		return nil, errors.New("its sandbox does not run")
	}
	labels := got.Config.Labels
	owner, err := mesh.ParsePeerID(labels[labelOwner])
	if err != nil {
		return nil, err
	}
	addr, err := netip.ParseAddr(labels[labelAddress])
	if err != nil || !members.Contains(addr) {
		return nil, errors.Join(errors.New("its address cannot be read"), err)
	}
	w := mesh.Workload{ID: mesh.WorkloadID(labels[labelWorkload]), Owner: owner, Spec: mesh.Spec{
		Name: labels[labelName], Runtime: mesh.Container, Egress: mesh.Egress(labels[labelEgress]),
		Hosts: listed(labels[labelHosts]), Aliases: listed(labels[labelAliases]),
	}}
	if n := listed(labels[labelNetwork]); n != nil {
		w.Spec.Network, w.Spec.Networks = n[0], n[1:]
	}
	since, err := time.Parse(time.RFC3339Nano, got.Created)
	if err != nil {
		return nil, err
	}
	y := d.newWay(w, got.ID, addr, since)
	if err := y.open(got.NetworkSettings.SandboxKey); err != nil {
		return nil, errors.Join(err, y.close())
	}
	return y, nil
}

// closeSandbox ends the way out and removes the sandbox. Twice is no harm.
func (d *Driver) closeSandbox(ctx context.Context, y *way) error {
	if y == nil {
		return nil
	}
	return errors.Join(y.close(), d.discard(ctx, y.sandbox))
}
