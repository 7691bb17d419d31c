// Package drivertest is the suite that every runtime passes: the contract of
// pkg/driver, as tests. A driver's own tests say how to make workloads and call
// Run.
package drivertest

import (
	"context"
	"crypto/rand"
	"testing"
	"time"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

// Harness says how the suite gets at one runtime.
type Harness struct {
	// New returns a driver as a freshly started peerd has it: what earlier drivers
	// of the same test run have started is still there, as far as the runtime's
	// workloads outlive peerd at all. It is closed by t.Cleanup.
	New func(t testing.TB) driver.Driver

	// Serve makes a service that answers every HTTP request with status 200 and
	// the body "hello".
	Serve func() mesh.Spec
	// Print makes a workload that writes "line 1" to "line N" to stdout, one each
	// line, and ends with this exit code.
	Print func(lines, code int) mesh.Spec
	// Stubborn makes a service like Serve's that does not end when asked to; nil =
	// the runtime asks nobody.
	Stubborn func() mesh.Spec

	// Outlives says that workloads run on without peerd, so that Adopt finds them.
	Outlives bool
	// Owner signs the workloads.
	Owner mesh.PeerID
}

// limit bounds each test of the suite.
const limit = 90 * time.Second

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	t.Run("ServesUntilStopped", h.servesUntilStopped)
	t.Run("ExitCodes", h.exitCodes)
	t.Run("LogTail", h.logTail)
	t.Run("LogTimesAndStreams", h.logTimes)
	t.Run("LogFollowEndsWithTheRun", h.logFollow)
	t.Run("LogFollowEndsWithTheContext", h.logFollowContext)
	if h.Stubborn != nil {
		t.Run("StopByForce", h.stopByForce)
	}
	t.Run("WaitAndDialGiveUpWithTheContext", h.giveUp)
	t.Run("StartAgainReplacesTheRun", h.startAgain)
	t.Run("Adopt", h.adopt)
	t.Run("Freeze", h.freeze)
	t.Run("OtherDigestIsDenied", h.otherDigest)
	t.Run("UnknownWorkload", h.unknown)
}

// workload gives spec an identity of its own.
func (h Harness) workload(spec mesh.Spec) mesh.Workload {
	var request [32]byte
	rand.Read(request[:])
	return mesh.Workload{ID: mesh.NewWorkloadID(request), Owner: h.Owner, Spec: spec.WithDefaults(), Created: time.Now()}
}

// start prepares and starts spec; what is left of it goes with the test.
func (h Harness) start(ctx context.Context, t testing.TB, d driver.Driver, spec mesh.Spec) (driver.Task, mesh.Workload) {
	t.Helper()
	w := h.workload(spec)
	prepare(ctx, t, d, w)
	task, err := d.Start(ctx, w)
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	removeAfter(t, d, w.ID)
	if task.ID() != w.ID {
		t.Errorf("the task is of %s, want %s", task.ID(), w.ID)
	}
	return task, w
}

func prepare(ctx context.Context, t testing.TB, d driver.Driver, w mesh.Workload) string {
	t.Helper()
	digest, err := d.Prepare(ctx, w, func(mesh.Progress) {})
	if err != nil {
		t.Fatalf("prepare: %v", err)
	}
	if !mesh.ValidDigest(digest) {
		t.Fatalf("prepare: %q is not a digest", digest)
	}
	return digest
}

func removeAfter(t testing.TB, d driver.Driver, id mesh.WorkloadID) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if err := d.Remove(ctx, id); err != nil {
			t.Errorf("remove %s: %v", id, err)
		}
	})
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// wantKind fails the test unless err is of this kind.
func wantKind(t testing.TB, doing string, err error, want mesh.Kind) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error, want %s", doing, want)
	} else if got := mesh.KindOf(err); got != want {
		t.Errorf("%s: got %s (%v), want %s", doing, got, err, want)
	}
}
