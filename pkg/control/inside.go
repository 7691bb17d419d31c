package control

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"peercompute/pkg/frame"
	"peercompute/pkg/mesh"
)

// This file is what exec and copy share: the streams of what is done inside a workload.

// The frame types of a session, besides those of a job.
const (
	FrameResize byte = 6 // columns and rows, two bytes each, big-endian
	FrameCredit byte = 7 // how many bytes of input were taken, four bytes
)

// cutTime is how long a client that does not read may keep an end waiting.
const cutTime = 2 * time.Second

// WindowSize is the size of a terminal in characters.
type WindowSize struct{ Columns, Rows uint16 }

// Streams are the ends of what is done inside a workload, in the caller's hands. An
// archive goes in by Stdin, or comes out by Stdout.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Size           <-chan WindowSize // may be nil; closed at the end
	Cut            func()            // ends writes that wait; set by the server
}

// inside serves a request that upgrades. do does what was asked, unless bad says that
// it cannot be; it calls begin once it may, for the streams. What it returns is the last
// that the client hears.
func (s *Server) inside(w http.ResponseWriter, r *http.Request, bad error, do func(ctx context.Context, ref, peer string, begin func() (Streams, error)) (any, error)) {
	err := bad
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
	did, err := do(ctx, r.PathValue("ref"), r.URL.Query().Get("peer"), func() (Streams, error) {
		conn, err := upgrade(w)
		if err != nil {
			return Streams{}, err
		}
		c = conn
		inbox = frame.NewInbox(func(credit []byte) { _ = c.send(FrameCredit, credit) })
		sizes := make(chan WindowSize, 1)
		wg.Go(func() {
			defer close(sizes)
			defer cancel() // the client is gone
			c.receive(inbox, sizes)
		})
		return Streams{
			Stdin: inbox, Stdout: frame.Writer{W: sender{c}, Type: FrameStdout}, Stderr: frame.Writer{W: sender{c}, Type: FrameStderr},
			Size: sizes, Cut: func() { _ = c.conn.SetWriteDeadline(time.Now().Add(cutTime)) },
		}, nil
	})
	if c == nil {
		if err == nil {
			err = mesh.Errorf(mesh.Internal, "it was not begun")
		}
		writeError(w, err)
		return
	}
	if err != nil {
		c.sendJSON(FrameError, NewError(err))
	} else {
		c.sendJSON(FrameExit, did)
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

// inside sends an order, carries its streams, and reads what the server said last into
// did. It ends with ctx.
func (c *Client) inside(ctx context.Context, path string, order any, input bool, io Streams, did any) error {
	conn, r, err := c.session(ctx, path, order)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	up := &wired{conn: conn}
	window := frame.NewWindow()
	if input {
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
	for {
		typ, p, err := frame.Read(r)
		if err != nil {
			return lost(ctx, err)
		}
		switch typ {
		case FrameStdout:
			err = give(io.Stdout, p)
		case FrameStderr:
			err = give(io.Stderr, p)
		case FrameCredit:
			err = window.Took(p)
		case FrameExit:
			return json.Unmarshal(p, did)
		case FrameError:
			return errorFrame(p)
		}
		if err != nil {
			return err
		}
	}
}

// give writes what came to whom it is for, if anybody.
func give(to io.Writer, p []byte) error {
	if to == nil {
		return errors.New("output came that nobody asked for")
	}
	_, err := to.Write(p)
	return err
}
