package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/event"
	"peercompute/pkg/lend"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// maxPauseFor bounds a pause with an end; one without has none.
const maxPauseFor = 365 * 24 * time.Hour

// lendState is whether peers' new work is taken now, for people.
func (n *Node) lendState() control.LendState {
	_, st, brk := n.lending.now()
	return control.LendState{
		Open: st.Open, Paused: brk.InForce(n.m.Now()), Reason: st.Reason, Opens: st.Opens, Closes: st.Closes, Then: string(st.Then),
	}
}

// Pause closes lending on the owner's word. What runs is kept, paused or stopped.
func (a *api) Pause(ctx context.Context, p control.Pause) (control.LendState, error) {
	if p.For < 0 || p.For > maxPauseFor {
		return control.LendState{}, mesh.Errorf(mesh.Invalid, "a pause of %s", p.For).WithHint("give a time such as 2h, or none for until you resume")
	}
	then, err := lend.ParseThen(p.Then)
	if err != nil {
		return control.LendState{}, err
	}
	b := lend.Break{Then: then}
	if p.For > 0 {
		b.Until = a.n.m.Now().Add(p.For).UTC()
	}
	return a.brk(ctx, &b)
}

// Resume takes the owner's word back; the schedule counts again.
func (a *api) Resume(ctx context.Context) (control.LendState, error) { return a.brk(ctx, nil) }

func (a *api) brk(ctx context.Context, b *lend.Break) (control.LendState, error) {
	l, action := a.n.lending, "resume"
	if b != nil {
		action = "pause"
	}
	l.saying.Lock()
	defer l.saying.Unlock()
	err := a.n.m.Store.Update(ctx, func(tx *store.Tx) error {
		if b == nil {
			return errors.Join(tx.Delete(store.Lend, keyBreak), a.n.noteLocal(tx, action, ""))
		}
		detail := "running work: " + string(b.Then)
		if !b.Until.IsZero() {
			detail += ", until " + b.Until.Format(time.RFC3339)
		}
		return errors.Join(tx.PutJSON(store.Lend, keyBreak, b), a.n.noteLocal(tx, action, detail))
	})
	if err != nil {
		return control.LendState{}, err
	}
	a.n.m.Events.Publish(event.Event{Type: event.Admission, Name: action})
	l.mu.Lock()
	l.brk = b
	l.mu.Unlock()
	l.changed()
	return a.n.lendState(), nil
}

// Lend is what this machine lends, and whether it does now.
func (a *api) Lend(context.Context) (control.Lend, error) {
	n := a.n
	p, _, _ := n.lending.now()
	out := control.Lend{
		Workloads: p.Workloads, MilliCPU: p.MilliCPU, Memory: p.Memory, Disk: p.Disk, Reserve: p.Reserve,
		When: p.When.String(), Then: string(p.Then), State: n.lendState(),
		PriceGFuel: p.PriceGFuel, PriceContainerSecond: p.PriceContainerSecond,
	}
	n.lending.mu.Lock()
	out.Set = n.lending.said.Said()
	if p.When.AsksIdle() {
		out.Idle = n.lending.detector.Describe()
	}
	n.lending.mu.Unlock()
	if _, available, err := n.cfg.Machine.Memory(); err == nil {
		out.Available = available
	}
	held, err := n.held()
	out.Used = control.Usage{Workloads: held.Workloads, Resources: held.Resources}
	return out, err
}

// SetLend changes what this machine lends; it holds from the next moment on.
func (a *api) SetLend(ctx context.Context, c control.LendChange) (control.Lend, error) {
	change := lend.Settings{
		Workloads: c.Workloads, MilliCPU: c.MilliCPU, Memory: c.Memory, Disk: c.Disk, Reserve: c.Reserve, When: c.When, Then: c.Then,
		PriceGFuel: c.PriceGFuel, PriceContainerSecond: c.PriceContainerSecond,
	}
	return a.said(ctx, func(said lend.Settings) lend.Settings { return change.Over(said) })
}

// ResetLend drops what was set with SetLend.
func (a *api) ResetLend(ctx context.Context) (control.Lend, error) {
	return a.said(ctx, func(lend.Settings) lend.Settings { return lend.Settings{} })
}

func (a *api) said(ctx context.Context, change func(lend.Settings) lend.Settings) (control.Lend, error) {
	l := a.n.lending
	l.saying.Lock()
	defer l.saying.Unlock()
	var said lend.Settings
	var policy lend.Policy
	err := a.n.m.Store.Update(ctx, func(tx *store.Tx) error {
		said = lend.Settings{}
		if _, err := tx.GetJSON(store.Lend, keySettings, &said); err != nil {
			return err
		}
		said = change(said)
		var err error
		if policy, err = said.Over(l.file).Policy(); err != nil {
			return err
		}
		if err := a.n.measurable(policy); err != nil {
			return err
		}
		return errors.Join(tx.PutJSON(store.Lend, keySettings, said), a.n.noteLocal(tx, "lend", describeLend(policy)))
	})
	if err != nil {
		return control.Lend{}, err
	}
	a.n.m.Events.Publish(event.Event{Type: event.Admission, Name: "lend", Detail: describeLend(policy)})
	l.mu.Lock()
	l.said, l.policy = said, policy
	l.mu.Unlock()
	l.changed()
	return a.Lend(ctx)
}

func describeLend(p lend.Policy) string {
	text := fmt.Sprintf("%d workloads, %g cpus, %d MiB memory, %d MiB disk, %d MiB kept; %s, then %s",
		p.Workloads, float64(p.MilliCPU)/1000, p.Memory>>20, p.Disk>>20, p.Reserve>>20, p.When, p.Then)
	if p.PriceGFuel != 0 || p.PriceContainerSecond != 0 {
		text += fmt.Sprintf("; %g for a thousand million of fuel, %g for a container's second", p.PriceGFuel, p.PriceContainerSecond)
	}
	return text
}

// measurable refuses what this machine could not keep.
func (n *Node) measurable(p lend.Policy) error {
	if p.When.AsksIdle() {
		if _, err := n.cfg.Machine.Look(n.m.Now()); err != nil {
			return err
		}
	}
	if p.Reserve == 0 {
		return nil
	}
	total, _, err := n.cfg.Machine.Memory()
	if err != nil {
		return mesh.AsError(err).WithHint("bound what is lent instead, with --memory")
	}
	if p.Reserve >= total {
		return mesh.Errorf(mesh.Invalid, "this machine has %d MiB of memory and cannot keep %d MiB of it", total>>20, p.Reserve>>20)
	}
	return nil
}
