package main

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"sync/atomic"

	"peercompute/pkg/driver/docker"
	"peercompute/pkg/driver/wasm"
	"peercompute/pkg/member"
	"peercompute/pkg/mesh"
	"peercompute/pkg/node"
	"peercompute/pkg/store"
)

// runtimes is what runs workloads here. It outlives a change of the node's key: only
// the node around it is begun anew then.
type runtimes struct {
	modules  *node.Modules
	member   atomic.Pointer[member.Member] // the node as it is now
	all      map[mesh.Runtime]node.Runtime // nil = not opened yet
	closers  []func() error
	warnings []string // what this machine cannot do
}

// open opens them, once.
func (rt *runtimes) open(ctx context.Context, cfg config, m *member.Member) error {
	rt.member.Store(m)
	if rt.all != nil {
		return nil
	}
	rt.all = map[mesh.Runtime]node.Runtime{}
	guests, err := wasm.New(wasm.Config{
		Dir: filepath.Join(m.Home, "wasm"), Module: rt.modules.Path, Log: m.Log, Command: workerProcess, MayConnect: rt.mayConnect, Burnt: rt.burnt,
	})
	if err != nil {
		return err
	}
	rt.closers = append(rt.closers, guests.Close)
	for _, missing := range guests.Hardening() {
		rt.warnings = append(rt.warnings, "WASM workers run without: "+missing)
	}
	rt.all[mesh.Wasm] = node.Runtime{Driver: guests, Ready: func(context.Context) (string, error) { return "wazero", nil }}

	if cfg.Docker.Enabled {
		// The engine knows the node's containers by its first ID, whatever its key is now.
		containers, err := docker.New(docker.Config{
			Node: m.Origin, Host: cfg.Docker.Host, Runtime: cfg.Docker.Runtime, Log: m.Log, MayConnect: rt.mayConnect, Owner: rt.ownerNow, Copier: copierProcess,
			Volumes: filepath.Join(m.Home, "volumes"), OwnersVolumes: rt.ownersVolumes, VolumeMade: rt.volumeMade, Manifest: rt.manifest, Secrets: rt.secretsOf,
		})
		if err != nil {
			return err
		}
		rt.closers = append(rt.closers, containers.Close)
		rt.all[mesh.Container] = node.Runtime{Driver: containers, Ready: containers.Ping}
		if _, err := containers.Ping(ctx); err != nil {
			rt.warnings = append(rt.warnings, "containers cannot run here: "+err.Error())
		} else if risks, err := containers.Risks(ctx); err == nil && risks != "" {
			rt.warnings = append(rt.warnings, "containers: "+risks+"; update the engine, or make sure that your distribution has mended it")
		}
	} else {
		rt.warnings = append(rt.warnings, "containers are turned off by the configuration")
	}
	for _, w := range rt.warnings {
		m.Log.Warn(w)
	}
	return nil
}

// burnt is what a server's earlier runs have burnt today.
func (rt *runtimes) burnt(run mesh.WorkloadID) (units uint64, err error) {
	m := rt.member.Load()
	err = m.Store.View(func(tx *store.Tx) error {
		units, err = node.ServerFuel(tx, run, m.Now())
		return err
	})
	return units, err
}

// close ends what they run that cannot outlive peerd. Closing twice is no harm.
func (rt *runtimes) close() error {
	var errs []error
	for _, c := range slices.Backward(rt.closers) {
		errs = append(errs, c())
	}
	rt.closers = nil
	return errors.Join(errs...)
}
