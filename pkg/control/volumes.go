package control

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"peercompute/pkg/mesh"
)

// Volumes is what a node answers about volumes. A ref is a name or a unique prefix of
// an ID; an empty peer is this machine.
type Volumes interface {
	// Volumes lists the volumes here, or those of this node on a peer.
	Volumes(ctx context.Context, peer string) ([]Volume, error)
	Volume(ctx context.Context, ref, peer string) (Volume, error)
	// RemoveVolume removes one with all its files. No workload may have it.
	RemoveVolume(ctx context.Context, ref, peer string) (Volume, error)
	// BackupVolume writes the archive of one that nothing runs on to what begin returns,
	// which it calls once the first bytes are there.
	BackupVolume(ctx context.Context, ref, peer string, begin func() (io.Writer, error)) (Archive, error)
	// RestoreVolume makes one and fills it with the files of an archive.
	RestoreVolume(ctx context.Context, r RestoreVolume, archive io.Reader) (RestoredVolume, error)
}

// VolumeRemoved is the state of a volume that is gone.
const VolumeRemoved = "removed"

// Volume is a volume.
type Volume struct {
	ID        mesh.VolumeID `json:"id"`
	Name      string        `json:"name"`
	Peer      string        `json:"peer"` // where it is: local name, or "self"
	PeerID    mesh.PeerID   `json:"peer_id"`
	Owner     string        `json:"owner"`
	OwnerID   mesh.PeerID   `json:"owner_id"`
	Size      int64         `json:"size"`      // bytes that it takes of the disk
	Used      int64         `json:"used"`      // bytes of it that are not free; 0 = not known, or never used
	State     string        `json:"state"`     // ready, restoring, removing or removed
	Workloads []string      `json:"workloads"` // that have it, running or not
	Created   time.Time     `json:"created"`
}

// Archive says what went through a backup or a restore.
type Archive struct {
	Digest  string `json:"digest"`         // of the archive's bytes, "sha256:…"
	Size    int64  `json:"size"`           // bytes of the archive
	Entries int    `json:"entries"`        // files, directories and links
	Bytes   int64  `json:"bytes"`          // of its files
	Left    int    `json:"left,omitempty"` // sockets, pipes and devices, which were left out
}

// RestoreVolume is the query of POST /v1/volumes/{name}/restore, whose body is the
// archive.
type RestoreVolume struct {
	Peer   string
	Name   string
	Size   int64  // bytes; 0 = mesh.DefaultVolume
	Digest string // that the archive must have; empty = any
}

// RestoredVolume is the answer.
type RestoredVolume struct {
	Volume  Volume  `json:"volume"`
	Archive Archive `json:"archive"`
}

// The trailers of a backup: one of them comes, once all of it was sent.
const (
	trailerArchive = "Peerd-Archive"
	trailerError   = "Peerd-Error"
)

func (s *Server) volumeRoutes(mux *http.ServeMux, get func(string, handler)) {
	w := s.cfg.Workloads
	ref := func(r *http.Request) (string, string) { return r.PathValue("ref"), r.URL.Query().Get("peer") }
	get("GET /v1/volumes", func(r *http.Request) (any, error) { return w.Volumes(r.Context(), r.URL.Query().Get("peer")) })
	get("GET /v1/volumes/{ref}", func(r *http.Request) (any, error) {
		name, peer := ref(r)
		return w.Volume(r.Context(), name, peer)
	})
	get("DELETE /v1/volumes/{ref}", func(r *http.Request) (any, error) {
		name, peer := ref(r)
		return w.RemoveVolume(r.Context(), name, peer)
	})
	get("POST /v1/volumes/{ref}/restore", func(r *http.Request) (any, error) {
		name, peer := ref(r)
		size, err := strconv.ParseInt(r.URL.Query().Get("size"), 10, 64)
		if err != nil {
			return nil, mesh.Errorf(mesh.Invalid, "the size is not a number of bytes").Because(err)
		}
		return w.RestoreVolume(r.Context(), RestoreVolume{Peer: peer, Name: name, Size: size, Digest: r.URL.Query().Get("digest")}, r.Body)
	})
	mux.HandleFunc("GET /v1/volumes/{ref}/backup", func(rw http.ResponseWriter, r *http.Request) {
		name, peer := ref(r)
		begun := false
		archive, err := w.BackupVolume(r.Context(), name, peer, func() (io.Writer, error) {
			begun = true
			rw.Header().Set("Content-Type", "application/gzip")
			rw.Header().Set("Trailer", trailerArchive+", "+trailerError)
			return rw, nil
		})
		switch {
		case err != nil && !begun:
			writeError(rw, err)
		case err != nil:
			setTrailer(rw, trailerError, NewError(err))
		default:
			setTrailer(rw, trailerArchive, archive)
		}
	})
}

func setTrailer(w http.ResponseWriter, name string, v any) {
	if b, err := json.Marshal(v); err == nil {
		w.Header().Set(name, string(b))
	}
}

// Volumes lists the volumes here, or those of this node on a peer.
func (c *Client) Volumes(ctx context.Context, peer string) (vs []Volume, err error) {
	return vs, c.call(ctx, "GET", "/v1/volumes?peer="+url.QueryEscape(peer), nil, &vs)
}

// Volume is one volume.
func (c *Client) Volume(ctx context.Context, ref, peer string) (v Volume, err error) {
	return v, c.call(ctx, "GET", volumePath(ref, "", peer), nil, &v)
}

// RemoveVolume removes a volume with all its files.
func (c *Client) RemoveVolume(ctx context.Context, ref, peer string) (v Volume, err error) {
	return v, c.call(ctx, "DELETE", volumePath(ref, "", peer), nil, &v)
}

// BackupVolume writes the archive of a volume to w. Only without an error is it whole.
func (c *Client) BackupVolume(ctx context.Context, ref, peer string, w io.Writer) (a Archive, err error) {
	req, err := http.NewRequestWithContext(ctx, "GET", "http://peerd"+volumePath(ref, "/backup", peer), nil)
	if err != nil {
		return a, err
	}
	resp, err := c.roundTrip(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	n, err := io.Copy(w, resp.Body)
	if err != nil {
		return a, mesh.Errorf(mesh.Unavailable, "the backup broke off").WithHint("make it again").Because(err)
	}
	if text := resp.Trailer.Get(trailerError); text != "" {
		var e Error
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			return a, err
		}
		return a, e.Err()
	}
	if err := json.Unmarshal([]byte(resp.Trailer.Get(trailerArchive)), &a); err != nil || a.Size != n {
		return a, mesh.Errorf(mesh.Unavailable, "the backup did not arrive whole").WithHint("make it again").Because(err)
	}
	return a, nil
}

// RestoreVolume makes a volume and fills it with the files of an archive.
func (c *Client) RestoreVolume(ctx context.Context, r RestoreVolume, archive io.Reader) (v RestoredVolume, err error) {
	path := volumePath(r.Name, "/restore", r.Peer) + "&size=" + strconv.FormatInt(r.Size, 10) + "&digest=" + url.QueryEscape(r.Digest)
	req, err := http.NewRequestWithContext(ctx, "POST", "http://peerd"+path, archive)
	if err != nil {
		return v, err
	}
	req.Header.Set("Content-Type", "application/gzip")
	return v, c.do(req, &v)
}

func volumePath(ref, verb, peer string) string {
	return "/v1/volumes/" + url.PathEscape(ref) + verb + "?peer=" + url.QueryEscape(peer)
}
