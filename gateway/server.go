package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"peercompute/pkg/mesh"
)

// ServerConfig is what NewServer needs.
type ServerConfig struct {
	Proxy *Proxy
	TLS   *tls.Config // nil = plain HTTP
	Log   *slog.Logger

	MaxConns       int           // connections at once; 0 = 8192
	MaxConnsPerIP  int           // of one IPv4 address or IPv6 /64; 0 = 1024, below 0 = no limit
	HeaderTimeout  time.Duration // for a request's head, and the TLS handshake; 0 = 10 s
	IdleTimeout    time.Duration // between requests; 0 = 75 s
	WriteTimeout   time.Duration // for the client to take one buffer; 0 = 12 s
	ShutdownGrace  time.Duration // that requests under way get when Run ends; 0 = 5 s
	MaxHeaderBytes int           // of a request's head; 0 = 32 KiB
}

// Server serves a Proxy to the public.
type Server struct {
	cfg ServerConfig
}

// NewServer checks the configuration. It starts nothing.
func NewServer(cfg ServerConfig) (*Server, error) {
	if cfg.Proxy == nil {
		return nil, errors.New("gateway: Proxy is required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	setDefault(&cfg.MaxConns, 8192)
	if cfg.MaxConnsPerIP == 0 {
		cfg.MaxConnsPerIP = 1024
	}
	setDefault(&cfg.HeaderTimeout, 10*time.Second)
	setDefault(&cfg.IdleTimeout, 75*time.Second)
	setDefault(&cfg.WriteTimeout, 12*time.Second)
	setDefault(&cfg.ShutdownGrace, 5*time.Second)
	setDefault(&cfg.MaxHeaderBytes, 32<<10)
	return &Server{cfg: cfg}, nil
}

// Run serves ln and the proxy's deadlines until ctx ends, gives requests under
// way their grace, and returns when every connection is closed.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	guard := newGuard(ln, s.cfg)
	srv := &http.Server{
		Handler:           s.cfg.Proxy,
		TLSConfig:         s.cfg.TLS,
		ReadHeaderTimeout: s.cfg.HeaderTimeout,
		IdleTimeout:       s.cfg.IdleTimeout,
		MaxHeaderBytes:    s.cfg.MaxHeaderBytes,
		ConnState:         guard.state,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug), // it reports what clients do wrong
	}
	// The proxy outlives the listener: requests under way need their deadlines.
	proxyCtx, stopProxy := context.WithCancel(context.WithoutCancel(ctx))
	defer stopProxy()
	var g errgroup.Group
	g.Go(func() error { return s.cfg.Proxy.Run(proxyCtx) })
	served := make(chan error, 1)
	g.Go(func() error {
		if s.cfg.TLS != nil {
			served <- srv.ServeTLS(guard, "", "")
		} else {
			served <- srv.Serve(guard)
		}
		return nil
	})
	var err error
	select {
	case <-ctx.Done():
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.ShutdownGrace)
		if srv.Shutdown(grace) != nil {
			srv.Close()
		}
		cancel()
		<-served
	case err = <-served:
		srv.Close()
		err = mesh.Errorf(mesh.Unavailable, "cannot serve HTTP on %s", ln.Addr()).Because(err)
	}
	stopProxy() // cuts the tunnel streams, and upgraded connections with them
	_ = g.Wait()
	guard.wait()
	return err
}
