package main

import (
	"time"

	"github.com/spf13/cobra"

	"peercompute/pkg/mesh"
)

// guestFlags are what a WASM program may be given besides the processor: nothing
// by default.
type guestFlags struct {
	scratch int64
	clock   mesh.Clock
	hosts   []string
}

func (f *guestFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	sizeVar(flags, &f.scratch, "scratch", "give a WASM program a private directory of this size, in memory, gone at its end (at most "+formatSize(mesh.MaxScratch)+")")
	choiceVar(cmd, flags, &f.clock, "clock", "", "let a WASM program see the true time: wall (default: a clock that begins at a fixed date)", mesh.ClockWall)
	flags.Var(&value[string]{to: new(string), parse: f.host, kind: "HOST:PORT"}, "allow-host", "let a WASM program make HTTP requests to it, or a container connections; repeatable")
}

// host takes one more entry of the allow-list.
func (f *guestFlags) host(s string) (string, error) {
	h, err := mesh.ParseHost(s)
	if err != nil {
		return "", err
	}
	f.hosts = append(f.hosts, h.String())
	return s, nil
}

// apply puts them into a spec.
func (f *guestFlags) apply(s *mesh.Spec) {
	s.Clock, s.Hosts = f.clock, f.hosts
	if len(f.hosts) > 0 {
		s.Egress = mesh.EgressAllow
	}
	if f.scratch > 0 {
		s.Resources.Disk = f.scratch
	}
}

// misplaced refuses flags that a container would ignore without a word.
func (f *guestFlags) misplaced() error {
	switch {
	case f.scratch != 0:
		return usagef("--scratch is for WASM programs: a container's scratch space is --disk")
	case f.clock != "":
		return usagef("--clock is for WASM programs: a container sees the true time")
	}
	return nil
}

// serverFlags are of WASM services.
type serverFlags struct {
	serve       bool
	concurrency int
	idle        time.Duration
	fuelDay     uint64
}

func (f *serverFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&f.serve, "serve", false, "the WASM program is a server: it accepts connections at descriptor 3 (LISTEN_FDS) and keeps running")
	countVar(flags, &f.concurrency, "concurrency", "", "requests that a WASM service answers at once; more wait, then get 503 (default: the peer's)")
	durationVar(flags, &f.idle, "idle", "end a server that had no request for so long, until the next one (default "+mesh.DefaultIdle.String()+")")
	flags.Var(&value[uint64]{to: &f.fuelDay, parse: parseSomeFuel, kind: "FUEL"}, "fuel-per-day", "what a server may burn a day, such as 20T (default "+formatFuel(mesh.DefaultFuelDay)+")")
}

func (f *serverFlags) apply(s *mesh.Spec) {
	if f.serve {
		s.Shape = mesh.Server
	}
	s.Concurrency, s.Idle, s.FuelDay = f.concurrency, f.idle, f.fuelDay
}

func (f *serverFlags) misplaced(wasm bool) error {
	switch {
	case !wasm && f.serve:
		return usagef("--serve is for WASM programs: a container serves at its --port")
	case !wasm && f.concurrency != 0:
		return usagef("--concurrency is for WASM programs")
	case !f.serve && f.idle != 0:
		return usagef("--idle is for servers (--serve): nothing runs between the requests of other services")
	case !f.serve && f.fuelDay != 0:
		return usagef("--fuel-per-day is for servers (--serve): other services have --fuel for each request")
	}
	return nil
}
