package security

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

// floodEnv makes this test's own program a crowd of strangers: the two addresses of
// a node, TCP and QUIC, and the loopback addresses to come from, between spaces. It
// calls from "start N" on its standard input until N have called and "stop" was said,
// and then prints a tally.
const floodEnv = "PEERCOMPUTE_SECURITY_FLOOD"

// tally is what became of strangers.
type tally struct {
	Called   int64
	Shook    [2]int64 // got through the handshake, over TCP and over QUIC
	Answered int64    // got a byte after it
	Seconds  float64
}

func (t tally) shook() int64 { return t.Shook[0] + t.Shook[1] }

func (t tally) plus(o tally) tally {
	return tally{t.Called + o.Called, [2]int64{t.Shook[0] + o.Shook[0], t.Shook[1] + o.Shook[1]}, t.Answered + o.Answered, t.Seconds + o.Seconds}
}

// ways are how one address calls a node.
type ways struct {
	dialer *net.Dialer
	udp    *quic.Transport
}

func newWays(from string) (w ways, err error) {
	ip := net.ParseIP(from)
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: ip})
	if err != nil {
		return w, err
	}
	return ways{&net.Dialer{LocalAddr: &net.TCPAddr{IP: ip}}, &quic.Transport{Conn: socket}}, nil
}

func (w ways) close() { _ = w.udp.Close(); _ = w.udp.Conn.Close() }

func runFlood(line string) error {
	words := strings.Fields(line)
	var to [2]address
	for i := range to {
		var err error
		if to[i], err = addressOf(words[i]); err != nil {
			return err
		}
	}
	var from []ways
	for _, ip := range words[2:] {
		w, err := newWays(ip)
		if err != nil {
			return err
		}
		defer w.close()
		from = append(from, w)
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var least int64
		if _, err := fmt.Sscanf(in.Text(), "start %d", &least); err != nil {
			return err
		}
		var stop atomic.Bool
		done := make(chan tally)
		go func() { done <- flood(to, from, least, &stop) }()
		in.Scan()
		stop.Store(true)
		if err := json.NewEncoder(os.Stdout).Encode(<-done); err != nil {
			return err
		}
	}
	return in.Err()
}

// flood calls as fast as this machine can make strangers, each with a key of its own.
func flood(to [2]address, from []ways, least int64, stop *atomic.Bool) (out tally) {
	var called, answered atomic.Int64
	var shook [2]atomic.Int64
	began := time.Now()
	var wg sync.WaitGroup
	for range 8 * runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				i := called.Add(1) - 1
				if i >= least && stop.Load() {
					called.Add(-1)
					return
				}
				c, err := newCaller()
				if err != nil {
					panic(err)
				}
				w := from[int(i)/2%len(from)]
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				o, _ := c.call(ctx, to[i%2], w.udp, w.dialer)
				cancel()
				if o.shook {
					shook[i%2].Add(1)
				}
				if o.got > 0 {
					answered.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return tally{called.Load(), [2]int64{shook[0].Load(), shook[1].Load()}, answered.Load(), time.Since(began).Seconds()}
}

// crowd is such a program, as the test holds it. It gets what the other processes
// leave of the machine, so that what is measured beside it is the node's doing.
type crowd struct {
	t   *testing.T
	in  io.WriteCloser
	out *bufio.Scanner
}

func newCrowd(t *testing.T, tcp, quic string, from ...string) *crowd {
	t.Helper()
	cmd := exec.Command("nice", "-n", "19", os.Args[0])
	cmd.Env = append(os.Environ(), floodEnv+"="+strings.Join(append([]string{tcp, quic}, from...), " "))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the strangers' process: %v", err)
		}
	})
	return &crowd{t, in, bufio.NewScanner(out)}
}

func (c *crowd) say(line string) {
	c.t.Helper()
	if _, err := io.WriteString(c.in, line+"\n"); err != nil {
		c.t.Fatal(err)
	}
}

// start lets at least n strangers call.
func (c *crowd) start(n int) { c.t.Helper(); c.say(fmt.Sprint("start ", n)) }

// stop waits until they have.
func (c *crowd) stop() (out tally) {
	c.t.Helper()
	c.say("stop")
	if !c.out.Scan() {
		c.t.Fatal("the strangers' process ended")
	}
	if err := json.Unmarshal(c.out.Bytes(), &out); err != nil {
		c.t.Fatal(err)
	}
	return out
}
