// Package node is peerd's inside: the path of a request from the network or the
// local API to what is desired, and from there to the supervisor and the
// gateways. It knows runtimes only by their contract.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"peercompute/pkg/audit"
	"peercompute/pkg/blob"
	"peercompute/pkg/control"
	"peercompute/pkg/cron"
	"peercompute/pkg/driver"
	"peercompute/pkg/jobs"
	"peercompute/pkg/lend"
	"peercompute/pkg/member"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/publish"
	"peercompute/pkg/request"
	"peercompute/pkg/store"
	"peercompute/pkg/supervisor"
	"peercompute/pkg/wire"
)

// Runtime is one way to run workloads, as peerd's main puts it together.
type Runtime struct {
	Driver driver.Driver
	// Ready says whether it can be used now, with its version or the reason.
	Ready func(ctx context.Context) (detail string, err error)
}

// Config is what New needs.
type Config struct {
	Member   *member.Member
	Modules  *Modules
	Runtimes map[mesh.Runtime]Runtime
	Lend     lend.Settings // what the configuration says; peerctl lend goes before it
	Machine  Machine
	Warnings []string // what this machine cannot do; shown in status
}

// Node runs workloads for this machine's owner and for trusted peers.
type Node struct {
	cfg      Config
	m        *member.Member
	log      *slog.Logger
	sup      *supervisor.Supervisor
	gateways *gateways
	tunnels  *publish.Tunnels
	inputs   *blob.Store // what jobs read and observed, to repeat them
	queue    *jobs.Queue
	crons    *cron.Table

	lending *lending
	fuel    *fuelBook
	uptime  *uptime

	freeCount freeCount

	mu    sync.Mutex
	ready map[mesh.Runtime]readiness
	jobs  map[wire.Digest]heldJob // jobs that run, by the request that asked for them

	waiting map[mesh.PeerID]*blob.Store // inputs of queued jobs, by owner
	moving  mesh.PeerID                 // the new ID of whose key is just changing

	states   states // as last told
	sessions sessions

	imageWake  chan struct{} // an image is to be taken or removed
	volumeWake chan struct{} // a volume is to be removed
	volumeWork volumeWork
	late       chan late
	waits      imageWaits
	arrivals   arrivals
	uploads    uploads
	pushes     pushes
}

type readiness struct {
	at     time.Time
	detail string
	err    error
}

type heldJob struct {
	owner  mesh.PeerID
	spec   mesh.Spec
	cancel func(error) // ends it; nil = it does not run yet

	settled bool // what it burnt is written down
}

// New puts a node together; nothing runs before Run.
func New(cfg Config) (*Node, error) {
	n := &Node{cfg: cfg, m: cfg.Member, log: cfg.Member.Log, ready: map[mesh.Runtime]readiness{}, jobs: map[wire.Digest]heldJob{}, waiting: map[mesh.PeerID]*blob.Store{}, imageWake: make(chan struct{}, 1), volumeWake: make(chan struct{}, 1), late: make(chan late)}
	drivers := map[mesh.Runtime]driver.Driver{}
	for kind, r := range cfg.Runtimes {
		drivers[kind] = r.Driver
	}
	real(&n.cfg.Machine)
	n.lending, n.fuel, n.uptime = newLending(n, cfg.Lend, n.cfg.Machine), newFuelBook(n), newUptime(n)
	if err := n.lending.open(); err != nil {
		return nil, fmt.Errorf("cannot tell what this machine lends: %w", err)
	}
	n.gateways = newGateways(n)
	n.sup = supervisor.New(supervisor.Config{
		Store: n.m.Store, Drivers: drivers, Log: n.log, Now: n.m.Now,
		OnStatus: n.statusChanged, Hold: n.hold, OnEnd: n.runEnded, OnSwitch: func(mesh.WorkloadID) { n.gateways.poke() },
	})
	n.m.OnTrust(n.gateways.poke)
	n.m.OnTrust(n.lending.changed)
	n.m.OnTrust(n.endUntrusted)
	n.m.OnPeer(n.gateways.peerChanged)
	n.m.OnRekey(n.rekey)
	n.m.OnRekeyed(n.rekeyed)
	inputs, err := openInputs(n.m.Home)
	if err != nil {
		return nil, err
	}
	n.inputs = inputs
	if err := n.clearOutgoing(); err != nil {
		return nil, err
	}
	if err := n.openQueue(); err != nil {
		return nil, err
	}
	n.crons = newCrons(n)
	n.tunnels, err = publish.New(publish.Config{Allow: n.mayRoute, Dial: n.visit, Log: n.log})
	return n, err
}

// Run runs the node until ctx ends. ready is called once it can be reached.
func (n *Node) Run(ctx context.Context, ready func()) error {
	if err := n.fuel.open(ctx); err != nil {
		return err
	}
	n.m.Net.Handle(wire.TunnelProtocol, func(ctx context.Context, s *peernet.Stream) { n.tunnels.Serve(ctx, s.Peer(), s) })
	return n.m.Run(ctx, n.handlers(), &api{n}, member.Hooks{Withdraw: n.withdraw, Halt: n.halt, Status: n.status, Checkup: n.checkup, Free: n.free, Usage: n.usages}, ready,
		n.sup.Run, n.gateways.run, n.lending.run, n.fuel.run, n.uptime.run, n.queue.Run, n.sweepAsked, n.followLate, n.keepImages, n.keepVolumes, n.crons.Run)
}

// runtimes lists what can run now. The answer is kept for a moment, because it
// asks the engine.
func (n *Node) runtimes(ctx context.Context) []control.Runtime {
	const fresh = 5 * time.Second
	out := []control.Runtime{}
	for _, kind := range []mesh.Runtime{mesh.Container, mesh.Wasm} {
		r, ok := n.cfg.Runtimes[kind]
		if !ok {
			continue
		}
		n.mu.Lock()
		known := n.ready[kind]
		n.mu.Unlock()
		if known.at.IsZero() || time.Since(known.at) > fresh {
			// For everybody who asks in the next moments, so not cut by who asks first.
			ask, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			detail, err := r.Ready(ask)
			cancel()
			known = readiness{time.Now(), detail, err}
			n.mu.Lock()
			n.ready[kind] = known
			n.mu.Unlock()
		}
		line := control.Runtime{Kind: kind, Ready: known.err == nil, Detail: known.detail}
		if known.err != nil {
			line.Detail = known.err.Error()
		}
		out = append(out, line)
	}
	return out
}

// statusChanged hears of every change of a workload's state.
func (n *Node) statusChanged(id mesh.WorkloadID, st mesh.Status) {
	if st.State == mesh.Paused {
		n.tunnels.Drop(id) // who comes again hears that it is paused
	}
	if st.State != mesh.Running {
		n.sessions.end(notRunning(st), func(s *session) bool { return s.workload == id })
	}
	n.gateways.poke()
	n.states.tell(n.m.Events, id, st)
}

func (n *Node) status(s *control.Status) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	s.Runtimes = n.runtimes(ctx)
	state := n.lendState()
	s.Lending = &state
	s.Warnings = append(s.Warnings, n.cfg.Warnings...)
	err := n.m.Store.View(func(tx *store.Tx) error {
		_, err := volumesIn(tx, func(v volumeRecord) bool {
			s.Volumes++
			s.VolumesSize += v.Size
			return false
		})
		return errors.Join(err, supervisor.Each(tx, func(r supervisor.Record) error {
			if st, _, _ := n.sup.Status(r.Workload.ID); st.State == mesh.Running {
				s.Workloads++
			}
			return nil
		}))
	})
	if err != nil {
		n.log.Error("cannot read the workloads and volumes", "err", err)
	}
	s.Routes, s.Tunnels = n.gateways.report()
}

// runEnded counts the last of a run.
func (n *Node) runEnded(w mesh.Workload, t driver.Task) {
	n.fuel.ended(w, t)
	n.uptime.ended(w)
}

// withdraw ends what a removed peer has here: its names first, then its workloads.
func (n *Node) withdraw(ctx context.Context, p mesh.PeerID, keep bool) ([]mesh.WorkloadID, error) {
	n.gateways.poke()
	if keep {
		return nil, nil
	}
	if err := n.dropImages(ctx, p); err != nil {
		return nil, err
	}
	if err := n.m.Store.Update(ctx, func(tx *store.Tx) error { return dropSecrets(tx, p) }); err != nil {
		return nil, err
	}
	canceled, err := n.cancelAll(ctx, "its owner was removed", func(j jobs.Job) bool { return j.Owner == p })
	if err != nil {
		return nil, err
	}
	stopped, err := n.stopAll(ctx, audit.Local, "its owner was removed", func(w mesh.Workload) bool { return w.Owner == p })
	err = errors.Join(err, n.dropVolumes(ctx, p))
	return append(stopped, canceled...), errors.Join(err, n.forgetInputs(p))
}

// halt ends every workload and every job here.
func (n *Node) halt(ctx context.Context) ([]mesh.WorkloadID, error) {
	n.gateways.poke()
	canceled, err := n.cancelAll(ctx, "lockdown", func(jobs.Job) bool { return true })
	if err != nil {
		return nil, err
	}
	stopped, err := n.stopAll(ctx, audit.Local, "lockdown", func(mesh.Workload) bool { return true })
	return append(stopped, canceled...), err
}

// stopAll asks for the end of every workload that which says, and lists those that
// had not ended. actor and why are for the record.
func (n *Node) stopAll(ctx context.Context, actor, why string, which func(mesh.Workload) bool) ([]mesh.WorkloadID, error) {
	var stopped []mesh.WorkloadID
	err := n.m.Store.Update(ctx, func(tx *store.Tx) error {
		stopped = nil
		var hit []supervisor.Record
		err := supervisor.Each(tx, func(r supervisor.Record) error {
			if r.Desired == supervisor.Run && which(r.Workload) {
				hit = append(hit, r)
			}
			return nil
		})
		for _, r := range hit {
			r.Desired = supervisor.Stop
			if err == nil {
				err = supervisor.Put(tx, r)
			}
			if err == nil {
				err = audit.Append(tx, n.entry(actor, "stop", r.Workload, why))
			}
			stopped = append(stopped, r.Workload.ID)
		}
		return err
	})
	// From here on the tunnel lets nobody through to them any more (see mayRoute).
	for _, id := range stopped {
		n.tunnels.Drop(id)
	}
	n.gateways.poke()
	for _, id := range stopped {
		n.sup.Kick(id)
	}
	return stopped, err
}

func (n *Node) handlers() map[wire.Verb]request.Handler {
	return map[wire.Verb]request.Handler{
		wire.VerbPutModule: n.onPutModule,
		wire.VerbDeploy:    n.onDeploy,
		wire.VerbStop:      n.onStop,
		wire.VerbRemove:    n.onRemove,
		wire.VerbList:      n.onList,
		wire.VerbInspect:   n.onInspect,
		wire.VerbWatch:     n.onWatch,
		wire.VerbLogs:      n.onLogs,
		wire.VerbRun:       n.onRun,
		wire.VerbExpose:    n.onExpose,
		wire.VerbHide:      n.onHide,
		wire.VerbExplain:   n.onExplain,
		wire.VerbPutInput:  n.onPutInput,
		wire.VerbSubmit:    n.onSubmit,
		wire.VerbListJobs:  n.onListJobs,
		wire.VerbJob:       n.onJob,
		wire.VerbJobOutput: n.onJobOutput,
		wire.VerbCancelJob: n.onCancelJob,
		wire.VerbForward:   n.onForward,
		wire.VerbPushImage: n.onPushImage,
		wire.VerbImages:    n.onImages,
		wire.VerbPrune:     n.onPrune,
		wire.VerbFindImage: n.onFindImage,
		wire.VerbStats:     n.onStats,
		wire.VerbHistory:   n.onHistory,
		wire.VerbRollback:  n.onRollback,
		wire.VerbExec:      n.onExec,
		wire.VerbCopyOut:   n.onCopyOut,
		wire.VerbCopyIn:    n.onCopyIn,
		wire.VerbRestart:   n.onRestart,
		wire.VerbStatement: n.onStatement,

		wire.VerbSetSecret: n.onSetSecret, wire.VerbRemoveSecret: n.onRemoveSecret, wire.VerbSecrets: n.onSecrets,
		wire.VerbVolumes: n.onVolumes, wire.VerbRemoveVolume: n.onRemoveVolume,
		wire.VerbBackupVolume: n.onBackupVolume, wire.VerbRestoreVolume: n.onRestoreVolume,
	}
}
