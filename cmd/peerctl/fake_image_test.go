package main

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

const fakeImageID = "sha256:0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"

// imageRoutes plays a node with one pushed image. "foreign" is of another
// architecture; a directory whose Dockerfile says FAIL cannot be built.
func (n *fakeNode) imageRoutes(mux *http.ServeMux, handle func(string, func(*http.Request) (any, error))) {
	image := control.Image{
		Peer: self, PeerID: mustPeer(idSelf), Owner: "bob", OwnerID: mustPeer(idBob), ID: fakeImageID, Name: "web:\x1b[1m2", Size: 48 << 20, State: "ready", Created: n.began, Used: 1,
	}
	there := func(r *http.Request) []control.Image {
		i := image
		switch r.URL.Query().Get("peer") {
		case "":
		case "bob":
			i.Peer, i.Owner = "bob", self
		default:
			return []control.Image{}
		}
		return []control.Image{i}
	}
	handle("GET /v1/images", func(r *http.Request) (any, error) { return there(r), nil })
	handle("DELETE /v1/images", func(r *http.Request) (any, error) { return there(r), nil })
	send := func(w http.ResponseWriter, ev control.ImageEvent) { _ = json.NewEncoder(w).Encode(ev) }
	mux.HandleFunc("POST /v1/images/push", func(w http.ResponseWriter, r *http.Request) {
		var in control.PushImage
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			refuse(w, err)
			return
		}
		send(w, control.ImageEvent{Progress: &mesh.Progress{What: "sending " + in.Image, Done: 1, Total: 2}})
		if in.Image == "foreign" {
			e := asControl(mesh.Errorf(mesh.Unsupported, "the image is for linux/s390x; this machine runs linux/amd64").WithRule("host.platform").WithHint("build it for linux/amd64 and push that"))
			e.Peer = in.Peer
			send(w, control.ImageEvent{Error: e})
			return
		}
		i := image
		i.Peer, i.Name, i.Sent, i.Owner = in.Peer, in.Image, 4<<20, self
		send(w, control.ImageEvent{Image: &i})
	})
	mux.HandleFunc("POST /v1/images/build", func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			refuse(w, err)
			return
		}
		send(w, control.ImageEvent{Log: "Step 1/2 : FROM scratch\n"})
		if strings.Contains(string(b), "FAIL") {
			send(w, control.ImageEvent{Error: asControl(mesh.Errorf(mesh.Invalid, "the image could not be built: FAIL"))})
			return
		}
		send(w, control.ImageEvent{Image: &control.Image{Peer: self, PeerID: mustPeer(idSelf), OwnerID: mustPeer(idSelf), ID: fakeImageID}})
	})
}
