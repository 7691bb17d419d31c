package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"

	"peercompute/pkg/frame"
	"peercompute/pkg/mesh"
)

// UpgradeSession is the protocol name of the routes that stream into a running
// workload, after the upgrade. What follows are frames as in a job: FrameStdin up,
// FrameStdout down, an empty one for the end of either, and FrameError, the last,
// when it was cut.
const UpgradeSession = "peercompute-session"

// Conn is a connection to a port of a workload.
type Conn interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// Sessions are the streams into running workloads.
type Sessions interface {
	// Forward connects to a port of a workload; 0 is its own.
	Forward(ctx context.Context, ref, peer string, port uint16) (Conn, error)
	// Exec runs a program inside a workload and returns its exit status. begin is called
	// once it may, for the streams; the program is killed when ctx ends.
	Exec(ctx context.Context, ref, peer string, e Exec, begin func() (Streams, error)) (int, error)
	// Copy copies files into or out of a workload. begin is called once it may, for the
	// archive; it is cut off when ctx ends.
	Copy(ctx context.Context, ref, peer string, c Copy, begin func() (Streams, error)) (CopyReport, error)
	// Stats calls emit with a sample of each workload that q names, or of all that run,
	// once or until ctx ends or emit fails.
	Stats(ctx context.Context, q StatsQuery, emit func(StatsSample) error) error
}

func (s *Server) sessionRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /v1/workloads/{ref}/forward", s.forward)
	mux.HandleFunc("POST /v1/workloads/{ref}/exec", s.exec)
	mux.HandleFunc("POST /v1/workloads/{ref}/copy", s.copy)
	mux.HandleFunc("POST /v1/stats", s.stats)
}

// wired is an upgraded connection to a client.
type wired struct {
	conn net.Conn
	r    *bufio.Reader
	mu   sync.Mutex // one frame at a time
}

func wantsUpgrade(r *http.Request) error {
	if _, err := io.Copy(io.Discard, http.MaxBytesReader(nil, r.Body, maxBody)); err != nil {
		return mesh.Errorf(mesh.Invalid, "the request's body cannot be read").Because(err)
	}
	if r.Header.Get("Upgrade") != UpgradeSession {
		return mesh.Errorf(mesh.Invalid, "this needs an upgrade to %s", UpgradeSession)
	}
	return nil
}

// upgrade takes the connection over from net/http. The body was read before: what
// follows it are frames.
func upgrade(w http.ResponseWriter) (*wired, error) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	head := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + UpgradeSession + "\r\n\r\n"
	if _, err := io.WriteString(conn, head); err != nil {
		conn.Close()
		return nil, err
	}
	return &wired{conn: conn, r: buf.Reader}, nil
}

func (c *wired) send(typ byte, p []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return frame.Write(c.conn, typ, p)
}

// sendJSON tells the client something, which may have gone.
func (c *wired) sendJSON(typ byte, v any) {
	if b, err := json.Marshal(v); err == nil {
		_ = c.send(typ, b)
	}
}

func (s *Server) forward(w http.ResponseWriter, r *http.Request) {
	var port uint16
	err := wantsUpgrade(r)
	if err == nil {
		port, err = portOf(r)
	}
	if err != nil {
		writeError(w, err)
		return
	}
	s.jobs.Add(1)
	defer s.jobs.Done()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	far, err := s.cfg.Workloads.Forward(ctx, r.PathValue("ref"), r.URL.Query().Get("peer"), port)
	if err != nil {
		writeError(w, err)
		return
	}
	defer far.Close()
	c, err := upgrade(w)
	if err != nil {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		defer cancel() // the client is gone
		c.feed(far)
	})
	_, err = io.Copy(frame.Writer{W: sender{c}, Type: FrameStdout}, far)
	if err != nil {
		c.sendJSON(FrameError, NewError(err))
		c.conn.Close()
	} else if c.send(FrameStdout, nil) != nil {
		c.conn.Close()
	}
	wg.Wait() // until the client has heard the end, and hangs up
	c.conn.Close()
}

// sender writes frames that are whole already.
type sender struct{ c *wired }

func (s sender) Write(p []byte) (int, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.c.conn.Write(p)
}

// feed passes on what the client sends until it hangs up.
func (c *wired) feed(to Conn) {
	for {
		typ, p, err := frame.Read(c.r)
		if err != nil {
			return
		}
		switch {
		case typ != FrameStdin:
		case len(p) == 0:
			_ = to.CloseWrite() // an end that is gone need not hear it
		default:
			_, _ = to.Write(p) // what takes no more may still answer
		}
	}
}

// session sends a request, with in as its body unless it is nil, and upgrades its
// connection.
func (c *Client) session(ctx context.Context, path string, in any) (net.Conn, *bufio.Reader, error) {
	var body []byte
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, nil, err
		}
		body = b
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	r, err := upgraded(ctx, conn, path, body)
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, r, nil
}

func upgraded(ctx context.Context, conn net.Conn, path string, body []byte) (*bufio.Reader, error) {
	req, err := http.NewRequest("POST", "http://peerd"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", UpgradeSession)
	if err := req.Write(conn); err != nil {
		return nil, lost(ctx, err)
	}
	r := bufio.NewReaderSize(conn, 64<<10)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return nil, lost(ctx, err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer resp.Body.Close()
		return nil, decodeError(resp)
	}
	return r, nil
}

// errorFrame is the error that a FrameError carries.
func errorFrame(p []byte) error {
	var e Error
	if err := json.Unmarshal(p, &e); err != nil {
		return fmt.Errorf("cannot read the answer of peerd: %w", err)
	}
	return e.Err()
}

// errCut is a session that ended without saying so.
var errCut = errors.New("cut off")
