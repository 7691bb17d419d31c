package control

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"sync"

	"peercompute/pkg/frame"
	"peercompute/pkg/mesh"
)

func (s *Server) jobRoutes(mux *http.ServeMux, get func(string, handler)) {
	w := s.cfg.Workloads
	s.balanceRoutes(get)
	s.cronRoutes(get)
	s.composeRoutes(get)
	s.quorumRoutes(mux)
	get("POST /v1/inputs", func(r *http.Request) (any, error) {
		return w.UploadInput(r.Context(), io.LimitReader(r.Body, maxModule))
	})
	get("POST /v1/jobs", func(r *http.Request) (any, error) {
		j, err := body[SubmitJob](r)
		if err != nil {
			return nil, err
		}
		return w.SubmitJob(r.Context(), j)
	})
	get("GET /v1/jobs", func(r *http.Request) (any, error) { return w.Jobs(r.Context(), r.URL.Query().Get("peer")) })
	get("GET /v1/jobs/{ref}", func(r *http.Request) (any, error) { return w.Job(r.Context(), r.PathValue("ref")) })
	get("POST /v1/jobs/{ref}/cancel", func(r *http.Request) (any, error) { return w.CancelJob(r.Context(), r.PathValue("ref")) })
	mux.HandleFunc("POST /v1/jobs/{ref}/output", s.jobOutput)
	get("POST /v1/verify", func(r *http.Request) (any, error) {
		v, err := body[Verify](r)
		if err != nil {
			return nil, err
		}
		return w.Verify(r.Context(), v)
	})
	get("GET /v1/receipts", func(r *http.Request) (any, error) {
		q := ReceiptQuery{Peer: r.URL.Query().Get("peer")}
		if v := r.URL.Query().Get("limit"); v != "" {
			n, err := strconv.Atoi(v)
			if err != nil || n < 0 {
				return nil, mesh.Errorf(mesh.Invalid, "limit=%q is not a number", v)
			}
			q.Limit = n
		}
		return w.Receipts(r.Context(), q)
	})
	get("GET /v1/receipts/{id}", func(r *http.Request) (any, error) { return w.Receipt(r.Context(), r.PathValue("id")) })
	get("POST /v1/receipts/check", func(r *http.Request) (any, error) {
		f, err := body[ReceiptFile](r)
		if err != nil {
			return nil, err
		}
		return w.CheckReceipt(r.Context(), f)
	})
}

// jobOutput streams what a job wrote as frames.
func (s *Server) jobOutput(w http.ResponseWriter, r *http.Request) {
	o, err := body[JobOutput](r)
	if err != nil {
		writeError(w, err)
		return
	}
	streamed(w, func(start StartJob) (RunResult, error) {
		return s.cfg.Workloads.JobOutput(r.Context(), r.PathValue("ref"), o, start)
	})
}

// streamed answers with what a job wrote and how it ended, as frames.
func streamed(w http.ResponseWriter, run func(StartJob) (RunResult, error)) {
	out := &flushing{w: w, flush: http.NewResponseController(w)}
	begun := false
	end, err := run(func(st Started) (io.Reader, io.Writer, io.Writer, error) {
		begun = true
		w.Header().Set("Content-Type", "application/octet-stream")
		first, err := json.Marshal(st)
		if err == nil {
			err = out.frame(FrameBegun, first)
		}
		return nil, frame.Writer{W: out, Type: FrameStdout}, frame.Writer{W: out, Type: FrameStderr}, err
	})
	if !begun {
		if err == nil {
			err = mesh.Errorf(mesh.Internal, "there was no answer")
		}
		writeError(w, err)
		return
	}
	typ, v := FrameExit, any(end)
	if err != nil {
		typ, v = FrameError, NewError(err)
	}
	if b, err := json.Marshal(v); err == nil {
		_ = out.frame(typ, b) // the client may have gone
	}
}

// flushing sends each write at once, and takes them one at a time.
type flushing struct {
	mu    sync.Mutex
	w     io.Writer
	flush *http.ResponseController
}

func (f *flushing) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.w.Write(p)
	if err != nil {
		return n, err
	}
	return n, f.flush.Flush()
}

func (f *flushing) frame(typ byte, p []byte) error { return frame.Write(f, typ, p) }
