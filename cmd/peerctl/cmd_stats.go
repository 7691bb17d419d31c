package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

// sampleEvery is how far apart the samples are that a rate is made from.
const sampleEvery = time.Second

func cmdStats(a *app) *cobra.Command {
	var peer string
	cmd := &cobra.Command{
		Use:   "stats [WORKLOAD…]",
		Short: "Show what workloads use now, and what they may",
		Long: `Measures the workloads that run here and yours elsewhere, or those named, for a
second: processor (in cores), memory, processes, scratch space, volumes, network, and of
WASM guests the fuel that they have burnt and burn in a second.`,
		Example: `  peerctl stats
  peerctl stats web db -o json`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeWorkloads,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.stats(cmd.Context(), args, peer) },
	}
	a.peerFlag(cmd, &peer)
	return cmd
}

// usage is what -o json prints of one workload.
type usage struct {
	Name        string   `json:"name"`
	ID          string   `json:"id"`
	Peer        string   `json:"peer"`
	Kind        string   `json:"kind"`
	Time        string   `json:"time"`
	CPU         *float64 `json:"cpu"` // cores; null = not known yet
	CPULimit    float64  `json:"cpu_limit"`
	Memory      int64    `json:"memory"`
	MemoryLimit int64    `json:"memory_limit"`
	PIDs        int64    `json:"pids"`
	PIDsLimit   int64    `json:"pids_limit"`
	Disk        int64    `json:"disk"`
	DiskLimit   int64    `json:"disk_limit"`
	Volumes     int64    `json:"volumes"` // what they hold, all together
	VolumesSize int64    `json:"volumes_size"`
	Received    int64    `json:"received"`
	Sent        int64    `json:"sent"`
	Fuel        uint64   `json:"fuel"`
	FuelRate    *float64 `json:"fuel_per_second"`
}

// rates makes rates of samples. Peers measure at moments of their own, so a sample may
// bring nothing new of some workloads.
type rates struct {
	last map[mesh.WorkloadID]control.Stats
	cpu  map[mesh.WorkloadID]*float64
	fuel map[mesh.WorkloadID]*float64
}

func newRates() *rates {
	return &rates{map[mesh.WorkloadID]control.Stats{}, map[mesh.WorkloadID]*float64{}, map[mesh.WorkloadID]*float64{}}
}

// add takes a sample and returns its workloads with the rates that are known.
func (r *rates) add(sample control.StatsSample) []usage {
	out := []usage{}
	for _, s := range sample.Workloads {
		r.measure(s)
		out = append(out, usage{
			Name: s.Name, ID: string(s.ID), Peer: s.Peer, Kind: string(s.Kind), Time: s.Time.Format(time.RFC3339Nano),
			CPU: r.cpu[s.ID], CPULimit: float64(s.Limits.MilliCPU) / 1000, Memory: s.Used.Memory, MemoryLimit: s.Limits.Memory,
			PIDs: s.Used.PIDs, PIDsLimit: s.Limits.PIDs, Disk: s.Used.Disk, DiskLimit: s.Limits.Disk,
			Volumes: s.Used.Volumes, VolumesSize: s.Used.VolumesSize, Received: s.Used.Received, Sent: s.Used.Sent, Fuel: s.Used.Fuel, FuelRate: r.fuel[s.ID],
		})
	}
	return out
}

func (r *rates) measure(s control.Stats) {
	before, known := r.last[s.ID]
	took := s.Time.Sub(before.Time)
	if known && took == 0 {
		return
	}
	r.last[s.ID] = s
	// A run that began anew counts from zero again, and a peer's clock may be set.
	if !known || took < 0 || s.Used.CPU < before.Used.CPU || s.Used.Fuel < before.Used.Fuel {
		delete(r.cpu, s.ID)
		delete(r.fuel, s.ID)
		return
	}
	cpu := float64(s.Used.CPU-before.Used.CPU) / float64(took)
	fuel := float64(s.Used.Fuel-before.Used.Fuel) / took.Seconds()
	r.cpu[s.ID], r.fuel[s.ID] = &cpu, &fuel
}

func (u usage) cells() []string {
	cpu, fuel := none, none
	if u.CPU != nil {
		cpu = cores(*u.CPU) + " / " + cores(u.CPULimit)
	}
	of := func(used, limit int64) string {
		if limit == 0 {
			return formatSize(used)
		}
		return formatSize(used) + " / " + formatSize(limit)
	}
	disk, volumes, network := none, none, none
	if u.Kind == "container" {
		disk = of(u.Disk, u.DiskLimit)
	}
	if u.VolumesSize > 0 {
		volumes = of(u.Volumes, u.VolumesSize)
	}
	if u.Received+u.Sent > 0 {
		network = formatSize(u.Received) + " / " + formatSize(u.Sent)
	}
	if u.FuelRate != nil && u.Kind == "wasm" {
		fuel = formatFuel(u.Fuel) + " (" + formatFuel(uint64(*u.FuelRate)) + "/s)"
	}
	return []string{u.Name, u.Peer, cpu, of(u.Memory, u.MemoryLimit), strconv.FormatInt(u.PIDs, 10), disk, volumes, network, fuel}
}

// cores is a number of cores with two digits after the point.
func cores(n float64) string { return strconv.FormatFloat(n, 'f', 2, 64) }

func usageHeader() []string {
	return []string{"NAME", "PEER", "CPU", "MEMORY", "PIDS", "SCRATCH", "VOLUMES", "NET IN / OUT", "FUEL"}
}

var errEnough = errors.New("enough samples")

// maxSamples bounds the wait for rates, which a workload that has just begun lacks.
const maxSamples = 3

// measured waits until the rates of all are known.
func (a *app) measured(ctx context.Context, c *control.Client, refs []string, peer string) (list []usage, missing map[string]string, err error) {
	r, n := newRates(), 0
	err = c.Stats(ctx, control.StatsQuery{Refs: refs, Peer: peer, Every: sampleEvery}, func(s control.StatsSample) error {
		list, missing = r.add(s), s.Missing
		n++
		if n < maxSamples && slices.ContainsFunc(list, func(u usage) bool { return u.CPU == nil }) {
			return nil
		}
		return errEnough
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return list, missing, err
}

func (a *app) stats(ctx context.Context, refs []string, peer string) error {
	return a.withClient(func(c *control.Client) error {
		list, missing, err := a.measured(ctx, c, refs, peer)
		if err != nil {
			return err
		}
		a.noteMissing(missing)
		if a.json() {
			return a.printJSON(list)
		}
		if len(list) == 0 {
			a.note("nothing of that runs now; see: peerctl ps")
			return nil
		}
		return printUsages(a, list)
	})
}

func printUsages(a *app, list []usage) error {
	t := newTable(a.out, usageHeader()...)
	for _, u := range list {
		t.row(u.cells()...)
	}
	return t.flush()
}

func (a *app) noteMissing(missing map[string]string) {
	for _, p := range slices.Sorted(maps.Keys(missing)) {
		a.note("%s does not answer: %s", p, missing[p])
	}
}
