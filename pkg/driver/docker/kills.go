package docker

import (
	"context"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
)

// A container whose first process starts others that are killed for memory, again and
// again, lives on. Each of those kills is work for the kernel that no bound of the
// container's holds, on any core. After a few in a short time it gets little processor
// time, until there have been none for a while.
const (
	killsHold  = 3 // so many
	killsSpan  = 10 * time.Second
	killsQuiet = 30 * time.Second
	heldCPU    = 50_000_000 // billionths of a core
	heldKills  = "held to 5% of a core: its processes are killed for memory"
)

// labelCPU is what a container may have of the processors, in billionths of a core,
// whatever it has now.
const labelCPU = "peercompute.nanocpus"

// kills is the last few in one container, and until when it is held for them.
type kills struct {
	at    []time.Time // at most killsHold
	until time.Time   // zero = it is not
}

// killed notes one. hold is whether the container is to be held from now on.
func (k *kills) killed(now time.Time) (hold bool) {
	if !k.until.IsZero() {
		k.until = now.Add(killsQuiet)
		return false
	}
	k.at = append(k.at, now)
	if len(k.at) < killsHold {
		return false
	}
	if now.Sub(k.at[0]) > killsSpan {
		k.at = k.at[1:]
		return false
	}
	k.at, k.until = nil, now.Add(killsQuiet)
	return true
}

// over reports whether there is nothing more to know of it.
func (k *kills) over(now time.Time) bool {
	if !k.until.IsZero() {
		return now.After(k.until)
	}
	return now.Sub(k.at[len(k.at)-1]) > killsSpan
}

// watchKills holds and lets go of containers until ctx ends.
func (d *Driver) watchKills(ctx context.Context) {
	opts := events.ListOptions{Filters: filters.NewArgs(
		filters.Arg("type", string(events.ContainerEventType)), filters.Arg("event", string(events.ActionOOM)),
		filters.Arg("label", labelNode+"="+d.node.String()))}
	tick := time.NewTicker(killsSpan / 2)
	defer tick.Stop()
	for ctx.Err() == nil {
		happened, failed := d.cli.Events(ctx, opts)
		for up := true; up; {
			select {
			case e := <-happened:
				d.noteKill(ctx, e.Actor.ID)
			case <-tick.C:
				d.endHolds(ctx)
			case err := <-failed:
				up = false
				d.log.Debug("watching for processes that are killed broke off", "err", err)
			}
		}
		select {
		case <-tick.C:
			d.endHolds(ctx)
		case <-ctx.Done():
		}
	}
}

func (d *Driver) noteKill(ctx context.Context, id string) {
	d.mu.Lock()
	k := d.kills[id]
	if k == nil {
		k = &kills{}
		d.kills[id] = k
	}
	hold := k.killed(d.now())
	d.mu.Unlock()
	if !hold {
		return
	}
	d.log.Warn("a container is "+heldKills, "container", id)
	if err := d.giveCPU(ctx, id, func(own int64) int64 { return min(own, heldCPU) }); err != nil && ctx.Err() == nil {
		d.log.Warn("cannot hold it", "container", id, "err", err)
		d.mu.Lock()
		delete(d.kills, id) // nobody is told that it is; the next few are a new occasion
		d.mu.Unlock()
	}
}

// endHolds lets go of those that have been quiet.
func (d *Driver) endHolds(ctx context.Context) {
	var quiet []string
	d.mu.Lock()
	for id, k := range d.kills {
		switch now := d.now(); {
		case !k.over(now):
		case k.until.IsZero():
			delete(d.kills, id)
		default:
			quiet = append(quiet, id)
		}
	}
	d.mu.Unlock()
	for _, id := range quiet {
		if err := d.giveCPU(ctx, id, func(own int64) int64 { return own }); err != nil {
			d.log.Warn("cannot let go of a container", "container", id, "err", err) // asked again
			continue
		}
		d.mu.Lock()
		delete(d.kills, id)
		d.mu.Unlock()
	}
}

func (d *Driver) killsHeld(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	k := d.kills[id]
	return k != nil && !k.until.IsZero()
}

// giveCPU bounds a running container's processor time by what it makes of its own bound.
func (d *Driver) giveCPU(ctx context.Context, id string, bound func(own int64) int64) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	got, err := d.cli.ContainerInspect(ctx, id)
	if errdefs.IsNotFound(err) || err == nil && !got.State.Running {
		return nil
	}
	if err != nil {
		return err
	}
	own, err := strconv.ParseInt(got.Config.Labels[labelCPU], 10, 64)
	if err != nil || own <= 0 {
		return nil // of an earlier peerd, or none of ours to hold
	}
	now := bound(own)
	if now == got.HostConfig.NanoCPUs {
		return nil
	}
	_, err = d.cli.ContainerUpdate(ctx, id, container.UpdateConfig{Resources: container.Resources{NanoCPUs: now}})
	return err
}
