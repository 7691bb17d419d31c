package node

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"peercompute/pkg/lend"
	"peercompute/pkg/mesh"
	"peercompute/pkg/supervisor"
)

// This file says which of the peers' workloads are held back now, and what visitors
// of a held one get.

// hold is what a workload may do now. It is asked by many goroutines and only looks
// at what is in memory.
func (n *Node) hold(w mesh.Workload) supervisor.Hold {
	if w.Owner == n.m.Key.ID {
		return supervisor.Hold{} // the machine is its own
	}
	var h supervisor.Hold
	if st := n.lending.state(); !st.Open {
		level := map[lend.Then]supervisor.Level{lend.Pause: supervisor.Pause, lend.Stop: supervisor.End}[st.Then]
		h = supervisor.Hold{Level: level, Reason: st.Reason, Until: st.Opens}
	}
	g, known := n.m.Trust.Entry(w.Owner)
	if !known {
		return h // removed with --keep: only the machine's hours hold it
	}
	now := n.m.Now()
	if g.Expired(now) {
		return h.Max(supervisor.Hold{Level: supervisor.End, Reason: "the grant of " + g.Name + " here has ended"})
	}
	if w.Spec.Runtime == mesh.Wasm && n.fuel.spent(g) {
		opens := nextMidnight(now)
		spent := supervisor.Hold{
			Level: supervisor.End, Until: opens,
			Reason: "its owner's fuel of today is used up; it goes on " + opens.Format("2006-01-02 15:04 MST"),
		}
		if w.Spec.Shape == mesh.Job {
			spent.Level = supervisor.NoStart // what it burns was set aside for it
		}
		h = h.Max(spent)
	}
	return h
}

func nextMidnight(now time.Time) time.Time {
	y, m, d := now.UTC().Date()
	return time.Date(y, m, d+1, 0, 0, 0, 0, time.UTC)
}

// nextEnd is when the next grant ends by the clock; zero = none will.
func (n *Node) nextEnd(now time.Time) (next time.Time) {
	for _, g := range n.m.Trust.All() {
		if g.Until.After(now) && (next.IsZero() || g.Until.Before(next)) {
			next = g.Until
		}
	}
	return next
}

// errHeld ends a job that the owner's policy does not let go on.
var errHeld = errors.New("held")

// endJobs ends the peers' foreground jobs that may not go on.
func (n *Node) endJobs() {
	n.mu.Lock()
	var over []func(error)
	for _, j := range n.jobs {
		if j.cancel == nil {
			continue
		}
		if n.hold(mesh.Workload{Owner: j.owner, Spec: j.spec}).Level == supervisor.End {
			over = append(over, j.cancel)
		}
	}
	n.mu.Unlock()
	for _, cancel := range over {
		cancel(errHeld)
	}
}

// Bounds of what a visitor of a held workload is told.
const (
	refusalWait  = 10 * time.Second // for the visitor's request
	retryUnknown = 5 * time.Minute
	retryMost    = 24 * time.Hour
)

// refusal is a connection to nobody: it reads one HTTP request's head, answers that
// the service is paused and when to come again, and ends. The public hears no reason.
func refusal(until, now time.Time) net.Conn {
	after := retryUnknown
	if !until.IsZero() {
		after = min(max(until.Sub(now), time.Second), retryMost)
	}
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		_ = theirs.SetDeadline(time.Now().Add(refusalWait)) // a pipe has one
		r := bufio.NewReader(io.LimitReader(theirs, 64<<10))
		for {
			line, err := r.ReadSlice('\n')
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
				return
			}
			if err == nil && len(line) <= 2 { // the end of the head
				break
			}
		}
		const text = "This service is paused by the machine that runs it. Try again later.\n"
		_, _ = fmt.Fprintf(theirs, "HTTP/1.1 503 Service Unavailable\r\nRetry-After: %d\r\nConnection: close\r\n"+
			"Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\nContent-Length: %d\r\n\r\n%s",
			int((after+time.Second-1)/time.Second), len(text), text)
	}()
	return ours
}
