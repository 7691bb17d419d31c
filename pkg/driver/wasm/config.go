package wasm

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/netip"
	"os/exec"
	"time"

	"peercompute/pkg/mesh"
)

// Config is what New needs.
type Config struct {
	// Dir is for compile caches and logs; it is made with mode 0700 and belongs to
	// the driver alone.
	Dir string
	// Module is the path of the module file with this digest ("sha256:…"). The
	// caller keeps the files and never changes one.
	Module func(digest string) (path string, err error)
	// Command is a command that ends in WorkerMain: peerd itself, with its hidden
	// command. Its environment and directory are replaced.
	Command func() *exec.Cmd
	// MayConnect judges, before each HTTP request of a guest, whether its owner may
	// still have it made; nil = nobody may. The list of hosts is judged besides.
	MayConnect func(owner mesh.PeerID, s mesh.Spec) error
	// Burnt is what earlier runs of a server have burnt today of its fuel of a day;
	// nil = nothing.
	Burnt func(run mesh.WorkloadID) (units uint64, err error)
	// Resolve and TLS replace the system's resolver and trusted roots, in tests.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	TLS     *tls.Config
	// Log takes what concerns the driver; guests have logs of their own.
	Log *slog.Logger
	// Limits are those of a worker and its guests; zero fields mean the default.
	Limits Limits
	// GroupParent is the control group to make workers' memory groups in; "" = the
	// one that this process is in. Linux only.
	GroupParent string
}

// Limits bounds a worker: all that one peer may use of this driver. What a
// workload may use of that is in its spec.
type Limits struct {
	WorkerMemory int64         `json:"worker_memory"` // bytes, of all instances together; 0 = 1 GiB
	WorkerCache  int64         `json:"worker_cache"`  // bytes of compiled modules on disk; 0 = 512 MiB
	Module       int64         `json:"module"`        // bytes of one module; 0 = 64 MiB
	Compile      time.Duration `json:"compile"`       // to compile one module, ns; 0 = 60 s
	Concurrency  int           `json:"concurrency"`   // instances of one service at a time; 0 = 16
	Connections  int           `json:"connections"`   // open to all services of one peer; 0 = 1024
	Queue        int           `json:"queue"`         // requests that wait for an instance; 0 = 128
	QueueWait    time.Duration `json:"queue_wait"`    // how long, ns; 0 = 10 s
	Idle         time.Duration `json:"idle"`          // a worker without work is ended after, ns; 0 = 30 s
	Unresponsive time.Duration `json:"unresponsive"`  // a worker that answers no ping is killed after, ns; 0 = 10 s
	Log          int64         `json:"log"`           // bytes of one of the two files of a log; 0 = 1 MiB
	LogRate      int64         `json:"log_rate"`      // bytes a second into one log; 0 = 1 MiB
}

func (l Limits) withDefaults() Limits {
	or(&l.WorkerMemory, 1<<30)
	or(&l.WorkerCache, 512<<20)
	or(&l.Module, 64<<20)
	or(&l.Compile, time.Minute)
	or(&l.Concurrency, 16)
	or(&l.Connections, 1024)
	or(&l.Queue, 128)
	or(&l.QueueWait, 10*time.Second)
	or(&l.Idle, 30*time.Second)
	or(&l.Unresponsive, 10*time.Second)
	or(&l.Log, 1<<20)
	or(&l.LogRate, 1<<20)
	return l
}

func or[T int | int64 | time.Duration](p *T, v T) {
	if *p == 0 {
		*p = v
	}
}

func (c Config) validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("no directory"))
	}
	if c.Module == nil {
		errs = append(errs, errors.New("no source of modules"))
	}
	if c.Command == nil {
		errs = append(errs, errors.New("no worker command"))
	}
	if c.Log == nil {
		errs = append(errs, errors.New("no log"))
	}
	l := c.Limits
	if l.WorkerMemory < 0 || l.WorkerCache < 0 || l.Module < 0 || l.Compile < 0 || l.Concurrency < 0 || l.Connections < 0 || l.Queue < 0 ||
		l.QueueWait < 0 || l.Idle < 0 || l.Unresponsive < 0 || l.Log < 0 || l.LogRate < 0 {
		errs = append(errs, errors.New("a limit is negative"))
	}
	return errors.Join(errs...)
}
