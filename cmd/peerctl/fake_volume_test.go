package main

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

const fakeArchive = "the files"

// volumeRoutes plays a node with one volume, and one on bob. "busy" has a workload; the
// backup of "broken" breaks off.
func (n *fakeNode) volumeRoutes(mux *http.ServeMux, handle func(string, func(*http.Request) (any, error))) {
	volume := func(r *http.Request, name string) control.Volume {
		v := control.Volume{
			ID: "vvvvvvvvvvvvvvvv", Name: name, Peer: self, PeerID: mustPeer(idSelf), Owner: self, OwnerID: mustPeer(idSelf),
			Size: 1 << 30, Used: 256 << 20, State: "ready", Workloads: []string{"web"}, Created: n.began,
		}
		if r.URL.Query().Get("peer") == "bob" {
			v.Peer, v.PeerID = "bob", mustPeer(idBob)
		}
		return v
	}
	find := func(r *http.Request) (control.Volume, error) {
		name := r.PathValue("ref")
		switch name {
		case "none":
			return control.Volume{}, mesh.Errorf(mesh.NotFound, "no volume is called %q", name).WithHint("list them with: peerctl volume ls --peer NAME")
		case "busy":
			return control.Volume{}, mesh.Errorf(mesh.Conflict, "volume busy belongs to workload web").WithRule("volume.in-use").WithHint("remove that first: peerctl rm web")
		}
		return volume(r, name), nil
	}
	archive := control.Archive{Digest: fakeImageID, Size: int64(len(fakeArchive)), Entries: 3, Bytes: 2 << 20, Left: 1}
	handle("GET /v1/volumes", func(r *http.Request) (any, error) {
		if r.URL.Query().Get("peer") == "carol" {
			return []control.Volume{}, nil
		}
		return []control.Volume{volume(r, "da\x1bta"), volume(r, "data")}, nil
	})
	handle("GET /v1/volumes/{ref}", func(r *http.Request) (any, error) { return find(r) })
	handle("DELETE /v1/volumes/{ref}", func(r *http.Request) (any, error) {
		v, err := find(r)
		v.State = control.VolumeRemoved
		return v, err
	})
	handle("POST /v1/volumes/{ref}/restore", func(r *http.Request) (any, error) {
		b, err := io.ReadAll(r.Body)
		if err != nil || string(b) != fakeArchive {
			return nil, mesh.Errorf(mesh.Invalid, "the archive is cut off").WithRule("volume.archive")
		}
		v := volume(r, r.PathValue("ref"))
		if v.Size, err = strconv.ParseInt(r.URL.Query().Get("size"), 10, 64); err != nil {
			return nil, err
		}
		return control.RestoredVolume{Volume: v, Archive: archive}, nil
	})
	mux.HandleFunc("GET /v1/volumes/{ref}/backup", func(w http.ResponseWriter, r *http.Request) {
		if _, err := find(r); err != nil {
			refuse(w, err)
			return
		}
		w.Header().Set("Trailer", "Peerd-Archive, Peerd-Error")
		_, _ = io.WriteString(w, fakeArchive)
		switch r.PathValue("ref") {
		case "broken":
			b, _ := json.Marshal(asControl(mesh.Errorf(mesh.Unavailable, "the connection was lost while the volume was carried")))
			w.Header().Set("Peerd-Error", string(b))
		case "silent": // as a peerd that died
		default:
			b, _ := json.Marshal(archive)
			w.Header().Set("Peerd-Archive", string(b))
		}
	})
}
