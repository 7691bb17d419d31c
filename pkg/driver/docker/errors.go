package docker

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/client"

	"peercompute/pkg/mesh"
)

// Deadlines for the engine, so that a stuck one never holds us for ever.
const (
	callTimeout   = 30 * time.Second // one question
	startTimeout  = 2 * time.Minute  // create and start
	removeTimeout = time.Minute
	pullTimeout   = 30 * time.Minute
)

// fail turns an error of the engine into ours. doing completes "the container
// engine could not …". The engine's own words stay on this machine.
func (d *Driver) fail(err error, doing string) *mesh.Error {
	var ours *mesh.Error
	switch {
	case errors.As(err, &ours):
		return ours
	case errors.Is(err, context.Canceled):
		return mesh.Errorf(mesh.Canceled, "gave up while the container engine was to %s", doing).Because(err)
	case errors.Is(err, context.DeadlineExceeded):
		return mesh.Errorf(mesh.Timeout, "the container engine took too long to %s", doing).Because(err)
	case client.IsErrConnectionFailed(err):
		return mesh.Errorf(mesh.Unavailable, "the container engine does not answer").
			WithHint("start Docker and see that peerd may open %s; try: docker version", d.cli.DaemonHost()).Because(err)
	}
	kind := mesh.Internal
	switch {
	case errdefs.IsNotFound(err):
		kind = mesh.NotFound
	case errdefs.IsInvalidArgument(err):
		kind = mesh.Invalid
	case errdefs.IsConflict(err):
		kind = mesh.Conflict
	}
	return mesh.Errorf(kind, "the container engine could not %s", doing).Because(err)
}

// failStart explains why a container that was made did not start. The runtime
// tells such causes in words only, so this reads them, for the message alone:
// a start that failed has failed whatever the words.
func (d *Driver) failStart(err error, w mesh.Workload) *mesh.Error {
	text := err.Error()
	if _, what, ok := strings.Cut(text, "exec: "); ok {
		what, _, _ = strings.Cut(what, ": unknown")
		return mesh.Errorf(mesh.Invalid, "the image's program cannot be executed: %s", clip(what, 200)).
			WithHint("see what the image runs with: docker image inspect %s", w.Spec.Image).Because(err)
	}
	if strings.Contains(text, "memory limit too low") {
		return mesh.Errorf(mesh.OutOfMemory, "memory of %s is too little to start this container", bytesText(w.Spec.Resources.Memory)).
			WithHint("deploy with more --memory").Because(err)
	}
	return d.fail(err, "start the container")
}

// clip cuts text to n bytes and to one line.
func clip(s string, n int) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ")
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "") + "…"
	}
	return s
}
