package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"time"

	"peercompute/pkg/mesh"
)

// Members is what every node answers.
type Members interface {
	Journal
	Whoami(ctx context.Context) (Whoami, error)
	Status(ctx context.Context) (Status, error)
	Peers(ctx context.Context) ([]Peer, error)
	Peer(ctx context.Context, ref string) (Peer, error)
	AddPeer(ctx context.Context, a AddPeer) (Peer, error)
	AllowPeer(ctx context.Context, ref string, g GrantChange) (Peer, error)
	RemovePeer(ctx context.Context, ref string, keep bool) (RemovedPeer, error)
	Invite(ctx context.Context, n NewInvite) (Invite, error)
	Invites(ctx context.Context) ([]Invite, error)
	WithdrawInvite(ctx context.Context, id string) (Invite, error)
	Join(ctx context.Context, j JoinInvite) (Peer, error)
	Lockdown(ctx context.Context) (Lockdown, error)
	Unlock(ctx context.Context) (Lockdown, error)
	Identity
	Meeting
	Doctor
}

// Workloads is what a node answers that runs workloads. Refs are names or unique
// ID prefixes; peer narrows the search and may be empty.
type Workloads interface {
	Decider
	Pause(ctx context.Context, p Pause) (LendState, error)
	Resume(ctx context.Context) (LendState, error)
	Lend(ctx context.Context) (Lend, error)
	SetLend(ctx context.Context, c LendChange) (Lend, error)
	ResetLend(ctx context.Context) (Lend, error)
	UploadModule(ctx context.Context, r io.Reader) (Module, error)
	// Module is a module that is here; mesh.NotFound if it is not.
	Module(ctx context.Context, digest string) (Module, error)
	Deploy(ctx context.Context, d Deploy, emit func(DeployEvent) error) error
	Workloads(ctx context.Context, peer string) ([]Workload, error)
	Workload(ctx context.Context, ref, peer string) (Workload, error)
	Stop(ctx context.Context, ref, peer string) (Workload, error)
	Restart(ctx context.Context, ref, peer string) (Workload, error)
	Remove(ctx context.Context, ref, peer string, force bool) (Workload, error)
	Publish(ctx context.Context, ref, peer string, p Publish) (Workload, error)
	Unpublish(ctx context.Context, ref, peer string) (Workload, error)
	Logs(ctx context.Context, ref, peer string, o LogOptions) (LogReader, error)
	History(ctx context.Context, ref, peer string) ([]Revision, error)
	Rollback(ctx context.Context, ref, peer string, b Rollback, emit func(DeployEvent) error) error
	Jobs
	Crons
	Compose
	Sessions
	Images
	Volumes
	Secrets
}

// Config is what NewServer needs. Workloads is nil on a gateway.
type Config struct {
	Home      string
	Members   Members
	Workloads Workloads
	Log       *slog.Logger
}

// Server serves the local API.
type Server struct {
	cfg  Config
	jobs sync.WaitGroup // upgraded connections, which net/http does not wait for
}

// NewServer prepares a server; it listens in Run.
func NewServer(cfg Config) *Server { return &Server{cfg: cfg} }

const (
	maxBody       = 1 << 20 // bytes of any JSON body
	maxModule     = 64 << 20
	maxSocketPath = 103 // bytes, the least of the platforms
)

// Listen creates the socket, readable and writable by its owner only. The caller
// holds the home's lock, so a socket that is there is a dead one's.
func Listen(home string) (net.Listener, error) {
	path := filepath.Join(home, SocketName)
	if len(path) > maxSocketPath && runtime.GOOS != "windows" {
		return nil, mesh.Errorf(mesh.Invalid, "the path %s is too long for a socket (%d bytes, at most %d)", path, len(path), maxSocketPath).
			WithHint("use a shorter --home")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	// The home is 0700 already, so nobody could connect in between.
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Run serves on l until ctx ends, then lets running calls end for a moment.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	srv := &http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelError),
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	cancel() // long calls (logs -f, run) end now
	graceful, done := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer done()
	if srv.Shutdown(graceful) != nil {
		srv.Close()
	}
	<-failed
	s.jobs.Wait()
	return nil
}

// handler answers one route; what it returns is sent as JSON.
type handler func(r *http.Request) (any, error)

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	m := s.cfg.Members
	get := func(route string, h handler) { mux.HandleFunc(route, reply(h)) }
	get("GET /v1/whoami", func(r *http.Request) (any, error) { return m.Whoami(r.Context()) })
	get("GET /v1/status", func(r *http.Request) (any, error) { return m.Status(r.Context()) })
	get("GET /v1/peers", func(r *http.Request) (any, error) { return m.Peers(r.Context()) })
	get("GET /v1/peers/{peer}", func(r *http.Request) (any, error) { return m.Peer(r.Context(), r.PathValue("peer")) })
	get("POST /v1/peers", func(r *http.Request) (any, error) {
		a, err := body[AddPeer](r)
		if err != nil {
			return nil, err
		}
		return m.AddPeer(r.Context(), a)
	})
	get("PATCH /v1/peers/{peer}", func(r *http.Request) (any, error) {
		g, err := body[GrantChange](r)
		if err != nil {
			return nil, err
		}
		return m.AllowPeer(r.Context(), r.PathValue("peer"), g)
	})
	get("DELETE /v1/peers/{peer}", func(r *http.Request) (any, error) {
		keep, err := flag(r, "keep")
		if err != nil {
			return nil, err
		}
		return m.RemovePeer(r.Context(), r.PathValue("peer"), keep)
	})
	get("GET /v1/invites", func(r *http.Request) (any, error) { return m.Invites(r.Context()) })
	get("POST /v1/invites", func(r *http.Request) (any, error) {
		n, err := body[NewInvite](r)
		if err != nil {
			return nil, err
		}
		return m.Invite(r.Context(), n)
	})
	get("DELETE /v1/invites/{id}", func(r *http.Request) (any, error) {
		return m.WithdrawInvite(r.Context(), r.PathValue("id"))
	})
	get("POST /v1/lockdown", func(r *http.Request) (any, error) { return m.Lockdown(r.Context()) })
	get("DELETE /v1/lockdown", func(r *http.Request) (any, error) { return m.Unlock(r.Context()) })
	get("POST /v1/join", func(r *http.Request) (any, error) {
		j, err := body[JoinInvite](r)
		if err != nil {
			return nil, err
		}
		return m.Join(r.Context(), j)
	})
	s.identityRoutes(get)
	s.doctorRoutes(get)
	s.backupRoutes(mux)
	journalRoutes(mux, get, m)
	s.meetingRoutes(mux, get)
	if s.cfg.Workloads != nil {
		deciderRoutes(get, s.cfg.Workloads)
		s.workloadRoutes(mux, get)
	}
	mux.HandleFunc("/", reply(func(r *http.Request) (any, error) {
		if s.cfg.Workloads == nil {
			return nil, mesh.Errorf(mesh.Unsupported, "this node is a gateway: it runs no workloads").WithHint("see its routes with: peerctl status")
		}
		return nil, mesh.Errorf(mesh.NotFound, "the local API has no %s %s", r.Method, r.URL.Path).WithHint("is peerctl newer than peerd?")
	}))
	return mux
}

func (s *Server) workloadRoutes(mux *http.ServeMux, get func(string, handler)) {
	w := s.cfg.Workloads
	s.volumeRoutes(mux, get)
	ref := func(r *http.Request) (string, string) { return r.PathValue("ref"), r.URL.Query().Get("peer") }
	get("POST /v1/pause", func(r *http.Request) (any, error) {
		p, err := body[Pause](r)
		if err != nil {
			return nil, err
		}
		return w.Pause(r.Context(), p)
	})
	get("GET /v1/lend", func(r *http.Request) (any, error) { return w.Lend(r.Context()) })
	get("PATCH /v1/lend", func(r *http.Request) (any, error) {
		c, err := body[LendChange](r)
		if err != nil {
			return nil, err
		}
		return w.SetLend(r.Context(), c)
	})
	get("DELETE /v1/lend", func(r *http.Request) (any, error) { return w.ResetLend(r.Context()) })
	get("DELETE /v1/pause", func(r *http.Request) (any, error) { return w.Resume(r.Context()) })
	get("POST /v1/modules", func(r *http.Request) (any, error) {
		return w.UploadModule(r.Context(), io.LimitReader(r.Body, maxModule+1))
	})
	get("GET /v1/modules/{digest}", func(r *http.Request) (any, error) { return w.Module(r.Context(), r.PathValue("digest")) })
	get("GET /v1/workloads", func(r *http.Request) (any, error) { return w.Workloads(r.Context(), r.URL.Query().Get("peer")) })
	get("GET /v1/workloads/{ref}", func(r *http.Request) (any, error) {
		name, peer := ref(r)
		return w.Workload(r.Context(), name, peer)
	})
	get("POST /v1/workloads/{ref}/stop", func(r *http.Request) (any, error) {
		name, peer := ref(r)
		return w.Stop(r.Context(), name, peer)
	})
	get("POST /v1/workloads/{ref}/restart", func(r *http.Request) (any, error) {
		name, peer := ref(r)
		return w.Restart(r.Context(), name, peer)
	})
	get("DELETE /v1/workloads/{ref}", func(r *http.Request) (any, error) {
		name, peer := ref(r)
		force, err := flag(r, "force")
		if err != nil {
			return nil, err
		}
		return w.Remove(r.Context(), name, peer, force)
	})
	get("POST /v1/workloads/{ref}/publish", func(r *http.Request) (any, error) {
		name, peer := ref(r)
		p, err := body[Publish](r)
		if err != nil {
			return nil, err
		}
		return w.Publish(r.Context(), name, peer, p)
	})
	get("DELETE /v1/workloads/{ref}/publish", func(r *http.Request) (any, error) {
		name, peer := ref(r)
		return w.Unpublish(r.Context(), name, peer)
	})
	mux.HandleFunc("GET /v1/workloads/{ref}/logs", s.logs)
	get("GET /v1/workloads/{ref}/history", func(r *http.Request) (any, error) {
		name, peer := ref(r)
		return w.History(r.Context(), name, peer)
	})
	mux.HandleFunc("POST /v1/workloads/{ref}/rollback", s.rollback)
	mux.HandleFunc("POST /v1/deploy", s.deploy)
	mux.HandleFunc("POST /v1/run", s.run)
	s.jobRoutes(mux, get)
	s.sessionRoutes(mux)
	s.secretRoutes(mux)
	s.imageRoutes(mux, get)
}

func reply(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		out, err := h(r)
		if err != nil {
			writeError(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out) // a client that went away
	}
}

func body[T any](r *http.Request) (v T, err error) {
	dec := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		return v, mesh.Errorf(mesh.Invalid, "the request's body is malformed").WithHint("is peerctl of the same version as peerd?").Because(err)
	}
	return v, nil
}

func flag(r *http.Request, name string) (bool, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return false, nil
	}
	b, err := strconv.ParseBool(s)
	if err != nil {
		return false, mesh.Errorf(mesh.Invalid, "%s=%q is not true or false", name, s)
	}
	return b, nil
}

// PeerError marks an error as another peer's refusal, by that peer's local name.
type PeerError struct {
	Peer  string
	Cause error
}

func (e *PeerError) Error() string { return e.Peer + " refused: " + e.Cause.Error() }

// Unwrap lets errors.As find the mesh.Error.
func (e *PeerError) Unwrap() error { return e.Cause }

// NewError is the JSON form of err. Causes are shown: the reader is the owner of
// this machine.
func NewError(err error) *Error {
	e := mesh.AsError(err)
	out := &Error{Kind: e.Kind.String(), Code: e.Kind, Rule: e.Rule, Msg: e.Error(), Hint: e.Hint}
	var p *PeerError
	if errors.As(err, &p) {
		out.Peer = p.Peer
	}
	return out
}

var statusOf = map[mesh.Kind]int{
	mesh.Invalid: http.StatusBadRequest, mesh.NotFound: http.StatusNotFound, mesh.Conflict: http.StatusConflict,
	mesh.Untrusted: http.StatusForbidden, mesh.Denied: http.StatusForbidden, mesh.Quota: http.StatusForbidden,
	mesh.Unavailable: http.StatusServiceUnavailable, mesh.Unsupported: http.StatusNotImplemented,
	mesh.Timeout: http.StatusGatewayTimeout, mesh.TooLarge: http.StatusRequestEntityTooLarge,
}

func writeError(w http.ResponseWriter, err error) {
	e := NewError(err)
	code := statusOf[e.Code]
	if code == 0 {
		code = http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(e)
}
