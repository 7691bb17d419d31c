package control

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"sync"

	"peercompute/pkg/frame"
	"peercompute/pkg/mesh"
)

// lines answers with one JSON object a line, each sent at once. A failure after the
// first is one as well, made by failed; without that it cuts the answer.
func lines[T any](w http.ResponseWriter, r *http.Request, err error, failed func(*Error) T, all func(emit func(T) error) error) {
	started := false
	flush := http.NewResponseController(w)
	start := func() {
		if !started {
			started = true
			w.Header().Set("Content-Type", "application/x-ndjson")
			w.WriteHeader(http.StatusOK)
		}
	}
	emit := func(v T) error {
		start()
		if err := json.NewEncoder(w).Encode(v); err != nil {
			return err
		}
		return flush.Flush()
	}
	if err == nil {
		err = all(emit)
	}
	switch {
	case err != nil && !started:
		writeError(w, err)
	case err != nil && failed != nil:
		_ = emit(failed(NewError(err)))
	case err != nil && r.Context().Err() == nil:
		panic(http.ErrAbortHandler)
	default:
		start()
	}
}

func (s *Server) deploy(w http.ResponseWriter, r *http.Request) {
	d, err := body[Deploy](r)
	lines(w, r, err, failedDeploy, func(emit func(DeployEvent) error) error { return s.cfg.Workloads.Deploy(r.Context(), d, emit) })
}

func (s *Server) rollback(w http.ResponseWriter, r *http.Request) {
	b, err := body[Rollback](r)
	lines(w, r, err, failedDeploy, func(emit func(DeployEvent) error) error {
		return s.cfg.Workloads.Rollback(r.Context(), r.PathValue("ref"), r.URL.Query().Get("peer"), b, emit)
	})
}

func failedDeploy(e *Error) DeployEvent { return DeployEvent{Error: e} }

// run upgrades the connection and carries a job's streams as frames.
func (s *Server) run(w http.ResponseWriter, r *http.Request) {
	req, err := body[Run](r)
	if err != nil {
		writeError(w, err)
		return
	}
	if r.Header.Get("Upgrade") != UpgradeJob {
		writeError(w, mesh.Errorf(mesh.Invalid, "a job needs an upgrade to %s", UpgradeJob))
		return
	}
	s.jobs.Add(1)
	defer s.jobs.Done()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	var job *jobConn
	exit, err := s.cfg.Workloads.Run(ctx, req, func(begun Started) (io.Reader, io.Writer, io.Writer, error) {
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return nil, nil, nil, err
		}
		job = &jobConn{conn: conn}
		head := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + UpgradeJob + "\r\n\r\n"
		if _, err := io.WriteString(conn, head); err != nil {
			return nil, nil, nil, err
		}
		first, err := json.Marshal(begun)
		if err == nil {
			err = job.write(FrameBegun, first)
		}
		if err != nil {
			return nil, nil, nil, err
		}
		stdin, in := io.Pipe()
		job.stdin = stdin
		job.wg.Go(func() { job.readInput(buf.Reader, in, cancel) })
		return stdin, frameWriter{job, FrameStdout}, frameWriter{job, FrameStderr}, nil
	})
	if job == nil {
		if err == nil {
			err = mesh.Errorf(mesh.Internal, "the job was not started")
		}
		writeError(w, err)
		return
	}
	job.finish(exit, err)
}

type jobConn struct {
	mu    sync.Mutex // one frame at a time
	conn  net.Conn
	stdin *io.PipeReader
	wg    sync.WaitGroup
}

// readInput feeds stdin until its end; a connection that breaks ends the job.
func (j *jobConn) readInput(r *bufio.Reader, in *io.PipeWriter, cancel context.CancelFunc) {
	for {
		typ, p, err := frame.Read(r)
		if err != nil {
			in.CloseWithError(io.ErrUnexpectedEOF)
			cancel()
			return
		}
		if typ != FrameStdin {
			continue
		}
		if len(p) == 0 {
			in.Close()
		} else if _, err := in.Write(p); err != nil {
			continue // the job does not read any more; keep watching the connection
		}
	}
}

func (j *jobConn) write(typ byte, p []byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return frame.Write(j.conn, typ, p)
}

func (j *jobConn) finish(exit RunResult, err error) {
	typ, v := FrameExit, any(exit)
	if err != nil {
		typ, v = FrameError, NewError(err)
	}
	if b, err := json.Marshal(v); err == nil {
		_ = j.write(typ, b) // the client may have gone
	}
	if j.stdin != nil {
		j.stdin.Close()
	}
	j.conn.Close()
	j.wg.Wait()
}

type frameWriter struct {
	job *jobConn
	typ byte
}

func (w frameWriter) Write(p []byte) (int, error) {
	w.job.mu.Lock()
	defer w.job.mu.Unlock()
	return frame.Writer{W: w.job.conn, Type: w.typ}.Write(p)
}
