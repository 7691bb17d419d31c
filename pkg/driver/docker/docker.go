// Package docker runs one workload as one hardened container of a local Docker
// engine. It owns the containers labelled with its node and touches no others.
//
// No privileged container, host mount, host namespace or published port can be
// made through it: a container is built by one pure function from constants and
// the workload (spec.go), read back from the engine before it starts (check.go),
// and removed if anything differs.
//
// A workload has a network namespace of its own with a loopback interface and
// nothing else: there is no address it could reach, neither the host's nor the
// LAN's, and no bridge, firewall rule or address pool to keep right. Its port is
// reached by making the socket inside that namespace (dial_linux.go), which
// needs the right to enter namespaces (root, or CAP_SYS_ADMIN) and Linux.
//
// One that may connect to something gets one device more, which leads into a TCP/IP
// stack in this process (internal/usernet). Each of its connections ends there, is
// judged (way.go), and is made anew from here. Without peerd there is no device.
//
// Why not an internal bridge network per workload? Docker's address pools end at
// the 31st network; it makes a start 1.4 times as long; and it still gives the
// workload a neighbour, the bridge.
package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/client"

	"peercompute/pkg/driver"
	"peercompute/pkg/driver/docker/internal/volume"
	"peercompute/pkg/egress"
	"peercompute/pkg/mesh"
)

// Config is what a Driver needs.
type Config struct {
	// Node is this node: its containers carry it, and only those are adopted.
	Node mesh.PeerID
	// Host is the engine's address ("unix:///var/run/docker.sock"); empty = the
	// platform's default. The environment is not read.
	Host string
	// Runtime is the engine's runtime for workloads ("runsc"), as this machine's owner
	// chose it; empty = the engine's default.
	Runtime string
	// MaxImage bounds a pulled image in bytes, on the wire and unpacked;
	// 0 = DefaultMaxImage.
	MaxImage int64
	// MayConnect is asked before each connection that a container makes to the outside,
	// with what its spec says of egress. nil denies.
	MayConnect func(owner mesh.PeerID, s mesh.Spec) error
	// Owner is who an owner is now, after changes of its key; nil = itself. Workloads of
	// one owner may share a network.
	Owner func(mesh.PeerID) mesh.PeerID
	// Copier is this program run once more, so that it calls CopyMain; killed when ctx
	// ends. nil = no files are copied into or out of containers.
	Copier func(ctx context.Context) *exec.Cmd
	Out    egress.Dialer // makes these connections
	// Volumes is the directory in which volumes lie; empty = there are none.
	Volumes string
	// Secrets reads the values that a workload's spec names, by the names of their files.
	// nil = there are none.
	Secrets func(ctx context.Context, w mesh.Workload) (map[string][]byte, error)
	// OwnersVolumes lists the volumes of an owner. nil = there are none.
	OwnersVolumes func(owner mesh.PeerID) ([]driver.Volume, error)
	// VolumeMade notes that a volume was made, for driver.Volume. nil = nobody notes it.
	VolumeMade func(ctx context.Context, id mesh.VolumeID) error
	// Manifest is the digest of the manifest by which a pushed image was served to the
	// engine: those that keep images with containerd call it that. nil, and empty, say that
	// it is not known.
	Manifest func(ref string) string
	Log      *slog.Logger     // nil = discard
	Now      func() time.Time // nil = time.Now
}

// DefaultMaxImage is how large a pulled image may be unless configured: 8 GiB.
const DefaultMaxImage = 8 << 30

// Driver runs workloads on a Docker engine. Close it when done.
type Driver struct {
	node     mesh.PeerID
	maxImage int64
	log      *slog.Logger
	now      func() time.Time
	cli      *client.Client
	pulls    keyLock

	mayConnect func(mesh.PeerID, mesh.Spec) error
	ownerNow   func(mesh.PeerID) mesh.PeerID
	out        egress.Dialer
	runtime    string
	copier     func(context.Context) *exec.Cmd
	booted     time.Time // when this machine started; zero = not known

	volumes       *volume.Store // nil = there are none
	ownersVolumes func(mesh.PeerID) ([]driver.Volume, error)
	volumeMade    func(context.Context, mesh.VolumeID) error
	manifest      func(string) string
	secrets       func(context.Context, mesh.Workload) (map[string][]byte, error)
	secretsDir    sync.Mutex // of the directory above them all, made with the first and gone with the last

	mu     sync.Mutex
	engine *engine                    // nil until the engine has answered once
	pinned map[mesh.WorkloadID]pinned // what Prepare found, until Remove
	ways   map[*way]bool              // the networks that are open
	cores  cores                      // that are left to others, until Remove
	kills  map[string]*kills          // for memory, by container

	watching sync.Once // for kills
	ctx      context.Context
	stop     context.CancelFunc // of what goes on beside the calls
	beside   sync.WaitGroup
}

var _ driver.Driver = (*Driver)(nil)

// pinned is an image that was found for a spec.
type pinned struct {
	ref, digest string // what the spec asked for
	image       image
}

// New returns a Driver. It opens no connection: an engine that does not answer
// shows at the first call.
func New(c Config) (*Driver, error) {
	if c.Node == "" {
		return nil, mesh.Errorf(mesh.Invalid, "the container driver needs the ID of its node")
	}
	if c.MaxImage < 0 {
		return nil, mesh.Errorf(mesh.Invalid, "the largest image cannot be %d bytes", c.MaxImage)
	}
	if c.MaxImage == 0 {
		c.MaxImage = DefaultMaxImage
	}
	if c.Host == "" {
		c.Host = client.DefaultDockerHost
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Owner == nil {
		c.Owner = func(p mesh.PeerID) mesh.PeerID { return p }
	}
	cli, err := client.NewClientWithOpts(client.WithHost(c.Host), client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, mesh.Errorf(mesh.Invalid, "%q is not the address of a container engine", c.Host).
			WithHint("an engine's address looks like %s", client.DefaultDockerHost).Because(err)
	}
	d := &Driver{
		node: c.Node, maxImage: c.MaxImage, log: c.Log, now: c.Now, cli: cli,
		pinned: map[mesh.WorkloadID]pinned{}, ways: map[*way]bool{}, cores: cores{}, kills: map[string]*kills{},
		booted: c.Now().Add(-upSince()), mayConnect: c.MayConnect, ownerNow: c.Owner, out: c.Out, runtime: c.Runtime, copier: c.Copier, ownersVolumes: c.OwnersVolumes, volumeMade: c.VolumeMade, manifest: c.Manifest, secrets: c.Secrets,
	}
	if c.Volumes != "" {
		d.volumes = volume.New(c.Volumes)
		if err := d.volumes.Sweep(); err != nil {
			return nil, fmt.Errorf("cannot clear what is left of volumes: %w", err)
		}
	}
	d.ctx, d.stop = context.WithCancel(context.Background())
	return d, nil
}

// Close drops the idle connections to the engine. Workloads run on; what they were
// connected to, they are no more, until the next driver adopts them.
func (d *Driver) Close() error {
	d.mu.Lock()
	ways := slices.Collect(maps.Keys(d.ways))
	d.mu.Unlock()
	d.stop()
	d.beside.Wait()
	var errs []error
	for _, y := range ways {
		errs = append(errs, y.close())
	}
	if err := d.cli.Close(); err != nil {
		errs = append(errs, fmt.Errorf("cannot close the connections to the engine: %w", err))
	}
	return errors.Join(errs...)
}

// Ping says what engine answers ("Docker 20.10.24, runc"). It fails with
// mesh.Unavailable if none does, and with mesh.Unsupported if the engine, this
// platform or peerd's rights do not suffice to run workloads.
func (d *Driver) Ping(ctx context.Context) (detail string, err error) {
	e, err := d.askEngine(ctx)
	if err != nil {
		return "", err
	}
	users := "no user-namespace remap"
	if e.remaps {
		users = "users remapped"
	}
	runtime := e.runtime
	if d.runtime != "" {
		runtime = d.runtime
	}
	if runtime == "runc" {
		runtime += " " + e.runc
	}
	detail = fmt.Sprintf("Docker %s, %s, %s", e.version, strings.TrimSpace(runtime), users)
	return detail, canEnter()
}

// Risks says what is known against the versions of the engine and its runtime, in one
// line; "" = nothing.
func (d *Driver) Risks(ctx context.Context) (string, error) {
	e, err := d.knowEngine(ctx)
	if err != nil || e.risks == "" {
		return "", err
	}
	if !e.remaps {
		return e.risks + "; users are not remapped, so whoever gets out is who it was inside", nil
	}
	return e.risks, nil
}
