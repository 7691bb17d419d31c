package control

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"time"

	"peercompute/pkg/archive"
	"peercompute/pkg/frame"
	"peercompute/pkg/mesh"
)

// Copy is POST /v1/workloads/{ref}/copy, which upgrades to UpgradeSession. A tar archive
// follows as FrameStdin up (with FrameCredit down) or FrameStdout down; FrameExit, with a
// CopyReport as JSON, or FrameError is the last.
type Copy struct {
	Path string `json:"path"`           // in the workload; absolute
	In   bool   `json:"in,omitempty"`   // into the workload
	Tree bool   `json:"tree,omitempty"` // what goes in is one tree, which Path may give a new name
}

// CopyReport is what was copied.
type CopyReport = archive.Report

// CopyStreams are the ends of an archive in the caller's hands.
type CopyStreams struct {
	In  io.Reader // of a copy into the workload
	Out io.Writer // of one out of it
	Cut func()    // ends writes that wait; set by the server
}

func (s *Server) copy(w http.ResponseWriter, r *http.Request) {
	order, err := body[Copy](r)
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
	did, err := s.cfg.Workloads.Copy(ctx, r.PathValue("ref"), r.URL.Query().Get("peer"), order, func() (CopyStreams, error) {
		conn, err := upgrade(w)
		if err != nil {
			return CopyStreams{}, err
		}
		c = conn
		inbox = frame.NewInbox(func(credit []byte) { _ = c.send(FrameCredit, credit) })
		wg.Go(func() {
			defer cancel() // the client is gone
			c.receive(inbox, nil)
		})
		return CopyStreams{
			In: inbox, Out: frame.Writer{W: sender{c}, Type: FrameStdout},
			Cut: func() { _ = c.conn.SetWriteDeadline(time.Now().Add(cutTime)) },
		}, nil
	})
	if c == nil {
		if err == nil {
			err = mesh.Errorf(mesh.Internal, "the copy was not begun")
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

// Copy copies files into or out of a workload, as a tar archive. It ends with ctx.
func (c *Client) Copy(ctx context.Context, ref, peer string, order Copy, io CopyStreams) (CopyReport, error) {
	conn, r, err := c.session(ctx, workloadPath(ref, "/copy", peer), order)
	if err != nil {
		return CopyReport{}, err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	up := &wired{conn: conn}
	window := frame.NewWindow()
	if order.In {
		go func() { _ = window.Copy(ctx, io.In, func(p []byte) error { return up.send(FrameStdin, p) }) }()
	}
	for {
		typ, p, err := frame.Read(r)
		if err != nil {
			return CopyReport{}, lost(ctx, err)
		}
		switch typ {
		case FrameStdout:
			_, err = io.Out.Write(p)
		case FrameCredit:
			err = window.Took(p)
		case FrameExit:
			var did CopyReport
			err := json.Unmarshal(p, &did)
			return did, err
		case FrameError:
			return CopyReport{}, errorFrame(p)
		}
		if err != nil {
			return CopyReport{}, err
		}
	}
}
