package control

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"time"

	"peercompute/pkg/mesh"
)

// Images is what a node answers about images that need no registry.
type Images interface {
	// PushImage gives an image of this machine to a peer. The last event has Image.
	PushImage(ctx context.Context, r PushImage, emit func(ImageEvent) error) error
	// BuildImage builds a directory, which comes as a tar archive with a Dockerfile,
	// on this machine. The last event has Image.
	BuildImage(ctx context.Context, dir io.Reader, o BuildOptions, emit func(ImageEvent) error) error
	// Images lists what peers pushed here, or what this node pushed to a peer.
	Images(ctx context.Context, peer string) ([]Image, error)
	// PruneImages removes those of them that no workload uses, and lists them.
	PruneImages(ctx context.Context, peer string) ([]Image, error)
}

// PushImage is POST /v1/images/push.
type PushImage struct {
	Peer  string `json:"peer"`
	Image string `json:"image"` // reference or image ID, on this machine
}

// BuildOptions are how a directory is built.
type BuildOptions struct {
	Dockerfile string            `json:"dockerfile,omitempty"` // its path in the directory; empty = Dockerfile
	Target     string            `json:"target,omitempty"`     // stage; empty = the last
	Args       map[string]string `json:"args,omitempty"`
}

// ImageEvent is one step of a push or a build. The last one has Image, or Error.
type ImageEvent struct {
	Progress *mesh.Progress `json:"progress,omitempty"`
	Log      string         `json:"log,omitempty"` // of a build
	Image    *Image         `json:"image,omitempty"`
	Error    *Error         `json:"error,omitempty"`
}

// Image is an image that a peer pushed, or one that was built.
type Image struct {
	Peer    string      `json:"peer"` // where it is: local name, or "self"
	PeerID  mesh.PeerID `json:"peer_id"`
	Owner   string      `json:"owner"` // who pushed it
	OwnerID mesh.PeerID `json:"owner_id"`
	Ref     string      `json:"ref,omitempty"` // what it is called there
	ID      string      `json:"id"`            // "sha256:…"
	Name    string      `json:"name"`          // what its owner calls it
	Size    int64       `json:"size"`          // bytes, unpacked
	State   string      `json:"state"`         // arriving, arrived, ready or removing
	Created time.Time   `json:"created,omitzero"`
	Used    int         `json:"used"`           // workloads that run from it
	Sent    int64       `json:"sent,omitempty"` // of a push: bytes that crossed the network for it
}

func (s *Server) imageRoutes(mux *http.ServeMux, get func(string, handler)) {
	w := s.cfg.Workloads
	get("GET /v1/images", func(r *http.Request) (any, error) { return w.Images(r.Context(), r.URL.Query().Get("peer")) })
	get("DELETE /v1/images", func(r *http.Request) (any, error) {
		return w.PruneImages(r.Context(), r.URL.Query().Get("peer"))
	})
	failed := func(e *Error) ImageEvent { return ImageEvent{Error: e} }
	mux.HandleFunc("POST /v1/images/push", func(rw http.ResponseWriter, r *http.Request) {
		in, err := body[PushImage](r)
		lines(rw, r, err, failed, func(emit func(ImageEvent) error) error { return w.PushImage(r.Context(), in, emit) })
	})
	mux.HandleFunc("POST /v1/images/build", func(rw http.ResponseWriter, r *http.Request) {
		// What a build says comes while its directory is still being read.
		_ = http.NewResponseController(rw).EnableFullDuplex()
		var o BuildOptions
		err := error(nil)
		if q := r.URL.Query().Get("options"); q != "" {
			if err = json.Unmarshal([]byte(q), &o); err != nil {
				err = mesh.Errorf(mesh.Invalid, "the options of the build cannot be read")
			}
		}
		lines(rw, r, err, failed, func(emit func(ImageEvent) error) error { return w.BuildImage(r.Context(), r.Body, o, emit) })
	})
}

// PushImage gives an image of this machine to a peer, and reports each step.
func (c *Client) PushImage(ctx context.Context, r PushImage, on func(ImageEvent)) (Image, error) {
	resp, err := c.stream(ctx, "POST", "/v1/images/push", r)
	if err != nil {
		return Image{}, err
	}
	return lastImage(ctx, resp, on)
}

// BuildImage builds a directory, a tar archive, on this machine.
func (c *Client) BuildImage(ctx context.Context, dir io.Reader, o BuildOptions, on func(ImageEvent)) (Image, error) {
	q, err := json.Marshal(o)
	if err != nil {
		return Image{}, err
	}
	req, err := http.NewRequestWithContext(ctx, "POST", "http://peerd/v1/images/build?options="+url.QueryEscape(string(q)), dir)
	if err != nil {
		return Image{}, err
	}
	req.Header.Set("Content-Type", "application/x-tar")
	resp, err := c.roundTrip(req)
	if err != nil {
		return Image{}, err
	}
	return lastImage(ctx, resp, on)
}

func lastImage(ctx context.Context, resp *http.Response, on func(ImageEvent)) (Image, error) {
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	for {
		var ev ImageEvent
		if err := dec.Decode(&ev); err != nil {
			return Image{}, lost(ctx, err)
		}
		switch {
		case ev.Error != nil:
			return Image{}, ev.Error.Err()
		case ev.Image != nil:
			return *ev.Image, nil
		}
		on(ev)
	}
}

// Images lists what peers pushed here, or what this node pushed to a peer.
func (c *Client) Images(ctx context.Context, peer string) (is []Image, err error) {
	return is, c.call(ctx, "GET", "/v1/images?peer="+url.QueryEscape(peer), nil, &is)
}

// PruneImages removes those of them that no workload uses.
func (c *Client) PruneImages(ctx context.Context, peer string) (is []Image, err error) {
	return is, c.call(ctx, "DELETE", "/v1/images?peer="+url.QueryEscape(peer), nil, &is)
}
