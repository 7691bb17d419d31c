package mesh

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Runtime says what runs a workload.
type Runtime string

// The runtimes.
const (
	Container Runtime = "container" // a hardened Docker container
	Wasm      Runtime = "wasm"      // a metered WebAssembly guest
)

// Shape says how a WASM guest is driven. It is empty for containers.
type Shape string

// The shapes of a WASM guest.
const (
	HTTP Shape = "http" // a CGI program: one instance per request
	Job  Shape = "job"  // runs `_start` to its end
	// and Server, in guest.go
)

// Egress says what a workload may connect to.
type Egress string

// The kinds of egress, besides EgressAllow. The zero value means none.
const (
	EgressNone     Egress = "none"
	EgressInternet Egress = "internet" // containers: whatever is public
)

// Restart says when a workload that ended is started again.
type Restart string

// The restart policies. The zero value means RestartOnFailure for services.
const (
	RestartNo        Restart = "no"
	RestartOnFailure Restart = "on-failure"
	RestartAlways    Restart = "always"
)

// Resources bounds one workload. In a Spec, zero means the default; in a grant
// the same fields bound the sum over all workloads of a peer.
type Resources struct {
	MilliCPU int64  `json:"milli_cpu,omitempty" cbor:"1,keyasint,omitempty"` // the most it may use, in thousandths of a core
	Memory   int64  `json:"memory,omitempty" cbor:"2,keyasint,omitempty"`    // bytes, swap included
	Disk     int64  `json:"disk,omitempty" cbor:"3,keyasint,omitempty"`      // bytes of writable scratch, which lies in memory
	PIDs     int64  `json:"pids,omitempty" cbor:"4,keyasint,omitempty"`      // processes and threads
	Fuel     uint64 `json:"fuel,omitempty" cbor:"5,keyasint,omitempty"`      // units of schedule fuel/1 a request or job may burn, and a server in a second
	// SharedCPU marks processor time as best effort: up to MilliCPU while there
	// is some to spare. It counts little against a quota.
	SharedCPU bool `json:"shared_cpu,omitempty" cbor:"6,keyasint,omitempty"`
}

// CountedCPU is what counts against a quota, in thousandths of a core.
func (r Resources) CountedCPU() int64 {
	if r.SharedCPU {
		return sharedMilliCPU
	}
	return r.MilliCPU
}

// Default bounds of a workload. Ten services fit into a grant of 1 GiB and one core.
const (
	DefaultMilliCPU = 1000 // shared
	sharedMilliCPU  = 100
	DefaultMemory   = 100 << 20 // of a service
	DefaultJob      = 256 << 20 // of a job
	DefaultDisk     = 64 << 20
	DefaultPIDs     = 100
	DefaultFuel     = 10_000_000_000
	DefaultTimeout  = 30 * time.Second
)

// Publication asks for a public name.
type Publication struct {
	// Gateway is the gateway's peer ID, or the name under which the peer that
	// runs the workload knows it; empty = that peer's only gateway.
	Gateway string `json:"gateway,omitempty" cbor:"1,keyasint,omitempty"`
}

// Spec is all that a deployer says about a workload. It is signed as a whole.
type Spec struct {
	Name      string        `json:"name" cbor:"1,keyasint"` // a DNS label, unique per owner on a peer
	Runtime   Runtime       `json:"runtime" cbor:"2,keyasint"`
	Shape     Shape         `json:"shape,omitempty" cbor:"3,keyasint,omitempty"`
	Image     string        `json:"image,omitempty" cbor:"4,keyasint,omitempty"`  // container: reference as typed; wasm: file name, for people
	Digest    string        `json:"digest,omitempty" cbor:"5,keyasint,omitempty"` // "sha256:<64 hex>": module (required), image ID or manifest (pin, optional)
	Args      []string      `json:"args,omitempty" cbor:"6,keyasint,omitempty"`
	Env       []string      `json:"env,omitempty" cbor:"7,keyasint,omitempty"`  // KEY=VALUE
	Port      uint16        `json:"port,omitempty" cbor:"8,keyasint,omitempty"` // container: the TCP port it listens on; 0 = none
	Resources Resources     `json:"resources" cbor:"9,keyasint"`
	Egress    Egress        `json:"egress,omitempty" cbor:"10,keyasint,omitempty"`
	Restart   Restart       `json:"restart,omitempty" cbor:"11,keyasint,omitempty"`
	Timeout   time.Duration `json:"timeout,omitempty" cbor:"12,keyasint,omitempty"` // wasm: wall clock of one request or job, ns
	Publish   *Publication  `json:"publish,omitempty" cbor:"13,keyasint,omitempty"`

	// Of WASM guests: see guest.go.
	Clock       Clock         `json:"clock,omitempty" cbor:"14,keyasint,omitempty"`
	Hosts       []string      `json:"hosts,omitempty" cbor:"15,keyasint,omitempty"`       // HOST:PORT, with EgressAllow, also of containers
	Concurrency int           `json:"concurrency,omitempty" cbor:"16,keyasint,omitempty"` // requests answered at once; 0 = as many as the peer has by default
	Idle        time.Duration `json:"idle,omitempty" cbor:"17,keyasint,omitempty"`        // a server without a request is ended after, until the next one; ns
	FuelDay     uint64        `json:"fuel_day,omitempty" cbor:"18,keyasint,omitempty"`    // units that a server may burn a day, which ends at midnight UTC

	// Of containers: see egress.go.
	Network string `json:"network,omitempty" cbor:"20,keyasint,omitempty"` // shared with the other workloads of its owner that name it; a label

	Secrets []SecretMount `json:"secrets,omitempty" cbor:"30,keyasint,omitempty"` // of containers: see secret.go

	// Signatures of what runs, where a grant asks for them: see signature.go.
	Signatures []Signature `json:"signatures,omitempty" cbor:"35,keyasint,omitempty"`
	// Directories that are writable besides /tmp and what the image declares as volumes;
	// see scratch.go. All share Resources.Disk evenly.
	Tmpfs []string `json:"tmpfs,omitempty" cbor:"40,keyasint,omitempty"`

	Volumes []VolumeMount `json:"volumes,omitempty" cbor:"23,keyasint,omitempty"` // of containers: see volume.go

	Health *Health `json:"health,omitempty" cbor:"29,keyasint,omitempty"` // nil = it is well as long as it runs

	// Of containers: see group.go.
	Entrypoint []string `json:"entrypoint,omitempty" cbor:"41,keyasint,omitempty"` // instead of the image's, whose arguments then go too
	WorkDir    string   `json:"work_dir,omitempty" cbor:"42,keyasint,omitempty"`   // instead of the image's
	Aliases    []string `json:"aliases,omitempty" cbor:"43,keyasint,omitempty"`    // further names in its networks
	Networks   []string `json:"networks,omitempty" cbor:"44,keyasint,omitempty"`   // beside Network
	Project    string   `json:"project,omitempty" cbor:"45,keyasint,omitempty"`    // the Compose project that it belongs to; a label, for people
}

// Bounds of a Spec, so that one request cannot make a record of any size.
const (
	MaxName    = 40
	MaxArgs    = 256
	MaxEnv     = 256
	MaxStrings = 64 << 10 // bytes of args and env together
	MaxTimeout = time.Hour
)

// WithDefaults fills in what was left zero.
func (s Spec) WithDefaults() Spec {
	r := &s.Resources
	if r.MilliCPU == 0 {
		r.MilliCPU, r.SharedCPU = DefaultMilliCPU, true
	}
	if s.Shape == Job {
		setDefault(&r.Memory, DefaultJob)
	}
	setDefault(&r.Memory, DefaultMemory)
	setDefault(&r.PIDs, DefaultPIDs)
	if s.Runtime == Container {
		setDefault(&r.Disk, DefaultDisk)
	} else {
		if s.Shape == Server {
			setDefault(&r.Fuel, DefaultServerFuel)
			setDefault(&s.Idle, DefaultIdle)
			setDefault(&s.FuelDay, DefaultFuelDay)
		}
		setDefault(&r.Fuel, DefaultFuel)
		setDefault(&s.Timeout, DefaultTimeout)
		setDefault(&s.Shape, HTTP)
	}
	setDefault(&s.Egress, EgressNone)
	setDefault(&s.Restart, RestartOnFailure)
	if s.Health != nil {
		h := s.Health.WithDefaults()
		s.Health = &h
	}
	return s
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Validate lists every problem of the spec in one Invalid error, or returns nil.
// It judges form only; whether a peer may run it is admission's question.
func (s Spec) Validate() error {
	var bad []string
	say := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	if !ValidLabel(s.Name) {
		say("name %q is not a DNS label of at most %d characters (a-z, 0-9, inner -)", s.Name, MaxName)
	}
	switch s.Runtime {
	case Container:
		if s.Image == "" {
			say("a container needs an image")
		}
		if s.Shape != "" {
			say("a container has no shape")
		}
	case Wasm:
		if s.Shape != HTTP && s.Shape != Job && s.Shape != Server {
			say("shape %q is not http, server or job", s.Shape)
		}
		if s.Digest == "" {
			say("a WASM workload needs the digest of its module")
		}
	default:
		say("runtime %q is not container or wasm", s.Runtime)
	}
	if len(s.Image) > 512 || strings.ContainsAny(s.Image, "\x00\n\r") {
		say("the image reference is malformed")
	}
	if s.Digest != "" && !ValidDigest(s.Digest) {
		say("digest %q is not sha256: and 64 hex digits", s.Digest)
	}
	s.validateStrings(say)
	r := s.Resources
	if r.MilliCPU < 0 || r.Memory < 0 || r.Disk < 0 || r.PIDs < 0 || s.Timeout < 0 {
		say("resources and timeout cannot be negative")
	}
	if r.SharedCPU && r.MilliCPU > DefaultMilliCPU {
		say("shared processor time is for at most one core")
	}
	if r.Memory > 0 && r.Memory < 6<<20 {
		say("memory %d B is under the least that starts, 6 MiB", r.Memory)
	}
	if s.Timeout > MaxTimeout {
		say("timeout %s is over %s", s.Timeout, MaxTimeout)
	}
	s.validateEgress(say)
	s.validateGuest(say)
	s.validateHealth(say)
	s.validateSignatures(say)
	s.validateTmpfs(say)
	s.validateVolumes(say)
	s.validateSecrets(say)
	s.validateGroup(say)
	switch s.Restart {
	case "", RestartNo, RestartOnFailure, RestartAlways:
	default:
		say("restart %q is not no, on-failure or always", s.Restart)
	}
	if s.Publish != nil && len(s.Publish.Gateway) > 128 {
		say("the gateway's name is over 128 characters")
	}
	if s.Publish != nil && s.Runtime == Container && s.Port == 0 {
		say("publishing a container needs --port, the port it listens on")
	}
	if len(bad) == 0 {
		return nil
	}
	return Errorf(Invalid, "%s", strings.Join(bad, "; "))
}

func (s Spec) validateStrings(say func(string, ...any)) {
	if len(s.Args)+len(s.Entrypoint) > MaxArgs || len(s.Env) > MaxEnv {
		say("more than %d arguments or %d environment variables", MaxArgs, MaxEnv)
	}
	total := 0
	for _, a := range slices.Concat(s.Entrypoint, s.Args) {
		total += len(a)
		if strings.ContainsRune(a, 0) {
			say("an argument contains a NUL byte")
		}
	}
	for _, kv := range s.Env {
		total += len(kv)
		k, _, ok := strings.Cut(kv, "=")
		if !ok || k == "" || strings.ContainsAny(kv, "\x00") {
			say("environment entry %q is not KEY=VALUE", k)
		}
	}
	if total > MaxStrings {
		say("arguments and environment are over %d bytes", MaxStrings)
	}
}

// ValidLabel reports whether s is a lower-case DNS label of at most MaxName characters.
func ValidLabel(s string) bool {
	if s == "" || len(s) > MaxName || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// ValidDigest reports whether s is "sha256:" and 64 lower-case hex digits.
func ValidDigest(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	return ok && len(hex) == 64 && strings.Trim(hex, "0123456789abcdef") == ""
}
