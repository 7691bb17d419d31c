package control

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"time"

	"peercompute/pkg/frame"
	"peercompute/pkg/mesh"
)

// The frame types of an exec, besides those of a job.
const (
	FrameResize byte = 6 // columns and rows, two bytes each, big-endian
	FrameCredit byte = 7 // how many bytes of input were taken, four bytes
)

// Exec is POST /v1/workloads/{ref}/exec, which upgrades to UpgradeSession.
type Exec struct {
	Argv  []string `json:"argv"`
	TTY   bool     `json:"tty,omitempty"`
	Stdin bool     `json:"stdin,omitempty"` // it gets input
}

// cutTime is how long a client that does not read may keep a program's end waiting.
const cutTime = 2 * time.Second

// ExecExit is how it ended, as JSON in the last frame.
type ExecExit struct {
	Status int `json:"status"`
}

// WindowSize is the size of a terminal in characters.
type WindowSize struct{ Columns, Rows uint16 }

// ExecStreams are the ends of a program in the caller's hands.
type ExecStreams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Size           <-chan WindowSize // may be nil; closed at the end
	Cut            func()            // ends writes that wait; set by the server
}

func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	e, err := body[Exec](r)
	if err == nil {
		err = wantsUpgrade(r)
	}
	if err != nil {
		writeError(w, err)
		return
	}
	s.jobs.Add(1)
	defer s.jobs.Done()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	var c *wired
	var wg sync.WaitGroup
	var inbox *frame.Inbox
	status, err := s.cfg.Workloads.Exec(ctx, r.PathValue("ref"), r.URL.Query().Get("peer"), e, func() (ExecStreams, error) {
		conn, err := upgrade(w)
		if err != nil {
			return ExecStreams{}, err
		}
		c = conn
		inbox = frame.NewInbox(func(credit []byte) { _ = c.send(FrameCredit, credit) })
		sizes := make(chan WindowSize, 1)
		wg.Go(func() {
			defer close(sizes)
			defer cancel() // the client is gone
			c.receive(inbox, sizes)
		})
		return ExecStreams{
			Stdin: inbox, Stdout: frame.Writer{W: sender{c}, Type: FrameStdout}, Stderr: frame.Writer{W: sender{c}, Type: FrameStderr},
			Size: sizes, Cut: func() { _ = c.conn.SetWriteDeadline(time.Now().Add(cutTime)) },
		}, nil
	})
	if c == nil {
		if err == nil {
			err = mesh.Errorf(mesh.Internal, "the program was not started")
		}
		writeError(w, err)
		return
	}
	if err != nil {
		c.sendJSON(FrameError, NewError(err))
	} else {
		c.sendJSON(FrameExit, ExecExit{status})
	}
	inbox.Close()
	c.conn.Close()
	wg.Wait()
}

// receive takes what the client sends until it hangs up.
func (c *wired) receive(inbox *frame.Inbox, sizes chan WindowSize) {
	for {
		typ, p, err := frame.Read(c.r)
		if err != nil {
			return
		}
		switch {
		case typ == FrameStdin:
			if inbox.Put(p) != nil {
				return
			}
		case typ == FrameResize && len(p) == 4:
			select {
			case <-sizes: // only the last counts
			default:
			}
			select {
			case sizes <- WindowSize{binary.BigEndian.Uint16(p), binary.BigEndian.Uint16(p[2:])}:
			default:
			}
		}
	}
}

// Exec runs a program inside a workload and returns its exit status. It is killed
// when ctx ends.
func (c *Client) Exec(ctx context.Context, ref, peer string, e Exec, io ExecStreams) (int, error) {
	conn, r, err := c.session(ctx, workloadPath(ref, "/exec", peer), e)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	up := &wired{conn: conn}
	window := frame.NewWindow()
	if e.Stdin {
		go func() { _ = window.Copy(ctx, io.Stdin, func(p []byte) error { return up.send(FrameStdin, p) }) }()
	}
	if io.Size != nil {
		go func() {
			for {
				select {
				case s, ok := <-io.Size:
					if !ok {
						return
					}
					_ = up.send(FrameResize, binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, s.Columns), s.Rows))
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	return io.follow(ctx, r, window)
}

func (s ExecStreams) follow(ctx context.Context, r *bufio.Reader, window *frame.Window) (int, error) {
	for {
		typ, p, err := frame.Read(r)
		if err != nil {
			return 0, lost(ctx, err)
		}
		switch typ {
		case FrameStdout:
			_, err = s.Stdout.Write(p)
		case FrameStderr:
			_, err = s.Stderr.Write(p)
		case FrameCredit:
			err = window.Took(p)
		case FrameExit:
			var x ExecExit
			err := json.Unmarshal(p, &x)
			return x.Status, err
		case FrameError:
			return 0, errorFrame(p)
		}
		if err != nil {
			return 0, err
		}
	}
}
