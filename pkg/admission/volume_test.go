package admission

import (
	"math"
	"testing"

	"peercompute/pkg/mesh"
	"peercompute/pkg/trust"
)

// The volumes that a deploy would make count with its scratch, against the grant and
// against what the machine lends.
func TestNewVolumesCount(t *testing.T) {
	g := trust.Grant{Peer: "x", Allow: trust.Deploy, Quota: trust.DefaultQuota()}
	g.Quota.Resources.Disk = 3 << 30
	p := Policy{Workloads: 10, Resources: mesh.Resources{MilliCPU: 8000, Memory: 8 << 30, Disk: 4 << 30}, Runtimes: []mesh.Runtime{mesh.Container}}
	s := mesh.Spec{Name: "a", Runtime: mesh.Container, Image: "x", Resources: mesh.Resources{Disk: 1 << 30}}.WithDefaults()
	held := func(peer, host, fresh int64) (u Usage) {
		u.Peer.Resources.Disk, u.Host.Resources.Disk, u.NewVolumes = peer, host, fresh
		return u
	}
	for _, c := range []struct {
		u    Usage
		rule string // empty = allowed
	}{
		{held(0, 0, 0), ""},
		{held(0, 0, 2<<30), ""},
		{held(0, 0, 2<<30+1), "grant.disk"},
		{held(1<<30, 1<<30, 1<<30+1), "grant.disk"},
		{held(0, 2<<30, 1<<30+1), "host.disk"},
		{held(0, 0, math.MaxInt64), "grant.disk"},
		{held(0, 0, -1), "grant.disk"},
	} {
		d := Decide(p, g, s, c.u)
		if d.Allow != (c.rule == "") || c.rule != "" && d.Rule != c.rule {
			t.Errorf("%+v: got %+v, want %q", c.u, d, c.rule)
		}
	}
	for bytes, allow := range map[int64]bool{1 << 30: true, 3 << 30: true, 3<<30 + 1: false, -1: false} {
		if d := DecideVolume(p, g, bytes, Usage{}); d.Allow != allow {
			t.Errorf("%d bytes: %+v", bytes, d)
		}
	}
	if DecideVolume(p, trust.Grant{Quota: g.Quota}, 1, Usage{}).Allow || DecideVolume(Policy{}, g, 1, Usage{}).Allow {
		t.Error("without a grant, or where nothing is lent, it is allowed")
	}
}
