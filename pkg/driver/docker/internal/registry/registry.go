// Package registry is a registry of one image, for as long as the engine of this
// machine pulls it. It answers on loopback only and takes nothing. Everything is
// below a path that nobody can guess, because other people of this machine may
// connect to loopback too.
package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"peercompute/pkg/oci"
)

// Open opens a part of the image by its digest.
type Open func(ctx context.Context, digest string) (*os.File, error)

// Registry serves one image. Close it when the pull is over.
type Registry struct {
	img      oci.Image
	manifest []byte
	digest   string
	secret   string
	open     Open
	parts    map[string]int64 // sizes by digest
	listener net.Listener
	server   *http.Server
	served   chan struct{}
	sent     atomic.Int64
}

// Serve starts a registry on a port that the kernel chooses.
func Serve(img oci.Image, open Open) (*Registry, error) {
	manifest, digest, err := img.Manifest()
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Registry{
		img: img, manifest: manifest, digest: digest, secret: strings.ToLower(rand.Text()), open: open,
		parts: map[string]int64{}, listener: l, served: make(chan struct{}),
	}
	for _, p := range img.Parts() {
		r.parts[p.Digest] = p.Size
	}
	r.server = &http.Server{
		Handler: r, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: log.New(io.Discard, "", 0), // the engine tries TLS first
	}
	go func() {
		defer close(r.served)
		_ = r.server.Serve(l) // ends with Close
	}()
	return r, nil
}

// Ref is what to pull: by digest, so that the engine itself refuses anything else.
func (r *Registry) Ref() string {
	return r.listener.Addr().String() + "/" + r.secret + "@" + r.digest
}

// Sent is how many bytes of parts were served.
func (r *Registry) Sent() int64 { return r.sent.Load() }

// Close ends what is being served.
func (r *Registry) Close() error {
	err := r.server.Close()
	<-r.served
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// ServeHTTP implements the part of the distribution protocol that a pull needs.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		http.Error(w, "read only", http.StatusMethodNotAllowed)
		return
	}
	if req.URL.Path == "/v2/" {
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
		return
	}
	if what, ok := strings.CutPrefix(req.URL.Path, "/v2/"+r.secret+"/"); ok {
		if what == "manifests/"+r.digest {
			w.Header().Set("Content-Type", oci.ManifestType)
			w.Header().Set("Docker-Content-Digest", r.digest)
			_, _ = w.Write(r.manifest)
			return
		}
		if digest, ok := strings.CutPrefix(what, "blobs/"); ok && r.parts[digest] > 0 {
			r.part(w, req, digest)
			return
		}
	}
	http.NotFound(w, req)
}

func (r *Registry) part(w http.ResponseWriter, req *http.Request, digest string) {
	f, err := r.open(req.Context(), digest)
	if err != nil {
		http.NotFound(w, req)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", digest)
	http.ServeContent(counting{w, &r.sent}, req, "", time.Time{}, f)
}

type counting struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c counting) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n.Add(int64(n))
	return n, err
}
