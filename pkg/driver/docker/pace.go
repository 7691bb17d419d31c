package docker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"golang.org/x/time/rate"

	"peercompute/pkg/driver"
)

// What a program writes costs the engine more than the program: every line is read,
// encoded and written to the log outside the container's control group, where none of
// its bounds holds. But the engine feeds whoever is attached to a container as it feeds
// the log, and waits for the slowest. So each container's output is read here once more,
// at the pace that it is allowed, and a program that writes faster waits as on any pipe.
const (
	outputRate = 2 << 20 // bytes a second, and at once; of lines, 16,000 empty ones
	lineCost   = 128     // bytes that a line counts for beside its own
	paceBuffer = 8 << 10 // costs less than outputRate, whatever is in it
	heldNotice = 10 * time.Second
)

const heldOutput = "waits to write more: its output is held to 2 MiB a second"

var _ driver.Holder = (*task)(nil)

// pace reads the container's output until it has ended or ctx has.
func (t *task) pace(ctx context.Context) {
	limit := rate.NewLimiter(outputRate, outputRate)
	for pause := waitAgainFirst; ; pause = min(2*pause, waitAgainMost) {
		err := t.readPaced(ctx, limit)
		if ctx.Err() != nil || errdefs.IsNotFound(err) || errors.Is(err, errEnded) {
			return
		}
		t.driver.log.Debug("reading the output of a container broke off", "workload", t.id, "err", err, "again", pause)
		timer := time.NewTimer(pause) // the engine is away, or the container frozen
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

var errEnded = errors.New("the container has ended")

func (t *task) readPaced(ctx context.Context, limit *rate.Limiter) error {
	a, err := t.driver.cli.ContainerAttach(ctx, t.container, container.AttachOptions{Stream: true, Stdout: true, Stderr: true})
	if err != nil {
		return err
	}
	defer a.Close()
	defer context.AfterFunc(ctx, a.Close)()
	ended := func() error { // one that ended before it was attached to says nothing, for ever
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		got, err := t.driver.cli.ContainerInspect(ctx, t.container)
		if err == nil && !got.State.Running {
			return errEnded
		}
		return err
	}
	if err := ended(); err != nil {
		return err
	}
	buf := make([]byte, paceBuffer)
	for {
		n, err := a.Reader.Read(buf)
		if err != nil {
			return errors.Join(ended(), io.EOF)
		}
		now := t.driver.now()
		wait := limit.ReserveN(now, n+lineCost*bytes.Count(buf[:n], []byte{'\n'})).DelayFrom(now)
		if wait <= 0 {
			continue
		}
		if t.outputHeld.Swap(now.UnixNano()) == 0 {
			t.driver.log.Warn("a container "+heldOutput, "workload", t.id)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// Held implements driver.Holder.
func (t *task) Held() string {
	if t.driver.killsHeld(t.container) {
		return heldKills
	}
	if at := t.outputHeld.Load(); at != 0 && t.driver.now().Sub(time.Unix(0, at)) < heldNotice {
		return heldOutput
	}
	return ""
}
