package wasm

import (
	"encoding/json"
	"strings"
	"time"
	"unicode"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

// What travels in the payloads of frames, as JSON. A worker holds code of
// strangers: peerd takes nothing from it for granted but these few fields, and
// acts on none of them beyond the worker's own workloads.

// hello tells the worker its limits.
type hello struct {
	Root   string `json:"root"` // its directory, for the compile cache
	UID    int    `json:"uid"`  // user to become, if it runs as root
	Limits Limits `json:"limits"`
}

// ready answers hello.
type ready struct {
	Held    []string `json:"held"`
	Missing []string `json:"missing"`
}

// loadCall compiles the module in the frame's file.
type loadCall struct {
	Digest string `json:"digest"`
}

// guestCall starts a workload. Serve: files are the module and the log. Job: the
// module, then standard input and output as one connection, and standard error;
// a supervised job has the log for both.
type guestCall struct {
	ID          mesh.WorkloadID `json:"id"`
	Run         uint64          `json:"run"` // tells two runs of one workload apart
	Digest      string          `json:"digest"`
	Name        string          `json:"name"`
	Args        []string        `json:"args,omitempty"`
	Env         []string        `json:"env,omitempty"`
	Memory      int64           `json:"memory"` // bytes of one instance
	MilliCPU    int64           `json:"milli_cpu"`
	Fuel        uint64          `json:"fuel"`              // units of one instance
	Timeout     time.Duration   `json:"timeout"`           // wall clock of one instance, ns
	Scratch     int64           `json:"scratch,omitempty"` // bytes of one instance's private directory
	Wall        bool            `json:"wall,omitempty"`    // its clock tells the time
	Server      bool            `json:"server,omitempty"`  // keeps running; Fuel is for a second
	FuelDay     uint64          `json:"fuel_day,omitempty"`
	Burnt       uint64          `json:"burnt,omitempty"` // of that, by earlier runs
	Idle        time.Duration   `json:"idle,omitempty"`  // ns
	Concurrency int             `json:"concurrency,omitempty"`
	HTTP        bool            `json:"http,omitempty"` // the last file is a connection for its HTTP requests
	Attached    bool            `json:"attached,omitempty"`

	// Of an attached job.
	Seed   driver.Seed `json:"seed,omitzero"`
	Whole  bool        `json:"whole,omitempty"`
	Repeat bool        `json:"repeat,omitempty"` // an earlier run, with this record
	Record []byte      `json:"record,omitempty"`
}

// runCall names a run, to connect to it, stop it, or read its figures.
type runCall struct {
	Run   uint64        `json:"run"`
	Grace time.Duration `json:"grace,omitempty"` // ns
}

// runNews is what a worker says of a run without being asked.
type runNews struct {
	Run  uint64 `json:"run"`
	Idle bool   `json:"idle"` // no instance of the server runs; the next request starts one
}

// runStats answers stats.
type runStats struct {
	CPU    time.Duration `json:"cpu"` // ns
	Memory int64         `json:"memory"`
	Peak   int64         `json:"peak"`
	Fuel   uint64        `json:"fuel"`
	Active int64         `json:"active"` // instances running now
}

func newGuestCall(w mesh.Workload, run uint64) guestCall {
	s := w.Spec.WithDefaults()
	return guestCall{
		ID: w.ID, Run: run, Digest: s.Digest, Name: s.Name, Args: s.Args, Env: s.Env,
		Memory: s.Resources.Memory, MilliCPU: s.Resources.MilliCPU, Fuel: s.Resources.Fuel, Timeout: s.Timeout,
		Server: s.Shape == mesh.Server, FuelDay: s.FuelDay, Idle: s.Idle, Concurrency: s.Concurrency,
		HTTP: len(s.Hosts) > 0, Scratch: s.Resources.Disk, Wall: s.Clock == mesh.ClockWall,
	}
}

// wireError is a mesh.Error on its way to peerd. Unlike towards another peer, the
// cause comes along: it is for this machine's log.
type wireError struct {
	Kind  mesh.Kind `json:"kind"`
	Rule  string    `json:"rule,omitempty"`
	Msg   string    `json:"msg"`
	Hint  string    `json:"hint,omitempty"`
	Cause string    `json:"cause,omitempty"`
}

func encodeError(err error) []byte {
	e := mesh.AsError(err)
	w := wireError{Kind: e.Kind, Rule: e.Rule, Msg: clip(e.Msg, 4<<10), Hint: clip(e.Hint, 4<<10)}
	if e.Err != nil {
		w.Cause = clip(e.Err.Error(), 16<<10)
	}
	b, err := json.Marshal(w)
	if err != nil { // strings and numbers only: cannot happen
		return []byte(`{}`)
	}
	return b
}

func decodeError(b []byte) error {
	var w wireError
	if err := json.Unmarshal(b, &w); err != nil {
		return mesh.Errorf(mesh.Unavailable, "the WASM worker gave an answer that makes no sense").Because(err)
	}
	e := &mesh.Error{Kind: w.Kind, Rule: w.Rule, Msg: clip(w.Msg, 4<<10), Hint: clip(w.Hint, 4<<10)}
	if w.Cause != "" {
		e.Err = causeError(clip(w.Cause, 16<<10))
	}
	return e
}

// causeError is a cause that was an error in the worker.
type causeError string

func (e causeError) Error() string { return string(e) }

// sane is an exit as a worker reported it, fit to be shown: its reason is a line.
func sane(e mesh.Exit) mesh.Exit {
	e.Reason = printable(clip(e.Reason, maxReason), "")
	e.Trace = printable(clip(e.Trace, maxTrace), "\n\t")
	return e
}

// The most that is kept of what a worker says about the end of a run, in bytes.
const (
	maxReason = 500
	maxTrace  = 4 << 10
)

// printable is s without control characters, but for those in keep.
func printable(s, keep string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && !strings.ContainsRune(keep, r) {
			return ' '
		}
		return r
	}, s)
}

// saneRan is a run as a worker reported it, held to its form.
func saneRan(r driver.Ran) (driver.Ran, error) {
	r.Exit = sane(r.Exit)
	if !mesh.ValidDigest(r.Input) || r.InputSize < 0 || len(r.Record) > driver.MaxRecord {
		return r, mesh.Errorf(mesh.Unavailable, "the WASM worker gave an answer that makes no sense")
	}
	return r, nil
}

// clip bounds a string that a guest may have made.
func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}
