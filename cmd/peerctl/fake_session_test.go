package main

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/frame"
	"peercompute/pkg/mesh"
)

func (n *fakeNode) sessionRoutes(mux *http.ServeMux, _ func(string, func(*http.Request) (any, error))) {
	mux.HandleFunc("POST /v1/workloads/{ref}/forward", n.forward)
	mux.HandleFunc("POST /v1/workloads/{ref}/exec", n.exec)
	mux.HandleFunc("POST /v1/workloads/{ref}/copy", n.copy)
	mux.HandleFunc("POST /v1/stats", n.stats)
}

// hijack takes a connection over for frames.
func hijack(w http.ResponseWriter) (io.ReadWriteCloser, io.Reader) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+control.UpgradeSession+"\r\n\r\n")
	return conn, rw
}

// forward plays a port that answers in capitals; 81 is closed, and who says "cut" on
// any other is cut off.
func (n *fakeNode) forward(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	_, err := n.find(r)
	n.mu.Unlock()
	if r.URL.Query().Get("port") == "81" {
		err = mesh.Errorf(mesh.Unavailable, "nothing answers on port 81 of the workload")
	}
	if err != nil {
		refuse(w, err)
		return
	}
	conn, in := hijack(w)
	defer conn.Close()
	for {
		typ, b, err := frame.Read(in)
		if err != nil || typ != control.FrameStdin {
			return
		}
		if bytes.HasPrefix(b, []byte("cut")) {
			_ = frame.Write(conn, control.FrameError, []byte(`{"kind":"unavailable","code":11,"message":"the workload is stopping"}`))
			return
		}
		_ = frame.Write(conn, control.FrameStdout, bytes.ToUpper(b)) // empty = its end
	}
}

// stats plays workloads that use half a core, and a peer that is away.
func (n *fakeNode) stats(w http.ResponseWriter, r *http.Request) {
	var q control.StatsQuery
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		refuse(w, err)
		return
	}
	at := time.Date(2026, 11, 26, 8, 0, 0, 0, time.UTC)
	for i := range 3 {
		s := control.StatsSample{Workloads: []control.Stats{}, Missing: map[string]string{"carol": "cannot reach carol"}}
		n.mu.Lock()
		for _, work := range n.workloads {
			if len(q.Refs) > 0 && !slices.Contains(q.Refs, work.Name) {
				continue
			}
			used := mesh.Stats{CPU: time.Duration(i) * time.Second / 2, Memory: 10 << 20, PIDs: 3, Fuel: uint64(i) * 5e6}
			if work.Kind == mesh.Container {
				used.Fuel, used.Disk, used.Received, used.Sent = 0, 1<<20, 2048, 1024
			}
			s.Workloads = append(s.Workloads, control.Stats{
				ID: work.ID, Name: work.Name, Peer: work.Peer, Kind: work.Kind, Time: at.Add(time.Duration(i) * time.Second),
				Limits: work.Spec.Resources, Used: used,
			})
		}
		n.mu.Unlock()
		_ = json.NewEncoder(w).Encode(s)
		_ = http.NewResponseController(w).Flush()
	}
	n.waiting <- struct{}{}
	<-r.Context().Done()
}

// exec plays programs: copy gives back its input, exit ends with a status, refuse is
// refused, and hang never ends.
func (n *fakeNode) exec(w http.ResponseWriter, r *http.Request) {
	var e control.Exec
	err := json.NewDecoder(r.Body).Decode(&e)
	if err == nil {
		n.mu.Lock()
		_, err = n.find(r)
		n.mu.Unlock()
	}
	if err == nil && e.Argv[0] == "refuse" {
		err = mesh.Errorf(mesh.Denied, "you may not exec here").WithRule("grant.exec")
	}
	if err != nil {
		refuse(w, err)
		return
	}
	conn, in := hijack(w)
	defer conn.Close()
	end := func(status int) {
		b, _ := json.Marshal(control.ExecExit{Status: status})
		_ = frame.Write(conn, control.FrameExit, b)
	}
	switch e.Argv[0] {
	case "copy":
		for {
			typ, b, err := frame.Read(in)
			if err != nil || typ == control.FrameStdin && len(b) == 0 {
				break
			}
			_ = frame.Write(conn, control.FrameCredit, []byte{0, 0, byte(len(b) >> 8), byte(len(b))})
			_ = frame.Write(conn, control.FrameStdout, b)
		}
		_ = frame.Write(conn, control.FrameStderr, []byte("copied\n"))
		end(0)
	case "exit":
		end(len(e.Argv))
	case "hang":
		n.waiting <- struct{}{}
		_, _ = io.Copy(io.Discard, in)
	}
}

// copy plays a container that keeps what was copied in, and serves /hostile: an archive
// that tries to get out, and at /hang one that never ends.
func (n *fakeNode) copy(w http.ResponseWriter, r *http.Request) {
	var o control.Copy
	err := json.NewDecoder(r.Body).Decode(&o)
	if err == nil {
		n.mu.Lock()
		_, err = n.find(r)
		n.mu.Unlock()
	}
	if err == nil && o.Path == "/etc" {
		err = mesh.Errorf(mesh.Denied, "a container's own files are read-only; the workload can write below /tmp")
	}
	if err != nil {
		refuse(w, err)
		return
	}
	conn, in := hijack(w)
	defer conn.Close()
	did := control.CopyReport{Files: 1}
	switch {
	case o.In:
		n.copied = nil
		for {
			typ, b, err := frame.Read(in)
			if err != nil || typ == control.FrameStdin && len(b) == 0 {
				break
			}
			n.copied = append(n.copied, b...)
			_ = frame.Write(conn, control.FrameCredit, binary.BigEndian.AppendUint32(nil, uint32(len(b))))
		}
	case o.Path == "/hang":
		n.waiting <- struct{}{}
		_, _ = io.Copy(io.Discard, in)
		return
	case o.Path == "/hostile":
		var b bytes.Buffer
		out := tar.NewWriter(&b)
		_ = out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "hostile/", Mode: 0o755})
		_ = out.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "hostile/\x1b[31mlink", Linkname: "../../secret"})
		_ = out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "../secret", Size: 4, Mode: 0o644})
		_, _ = out.Write([]byte("evil"))
		_ = out.Close()
		_ = frame.Write(conn, control.FrameStdout, b.Bytes())
	case o.Path == "/link":
		var b bytes.Buffer
		out := tar.NewWriter(&b)
		_ = out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "link/", Mode: 0o755})
		_ = out.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "link/\x1b[31mout", Linkname: "../../secret"})
		_ = out.Close()
		_ = frame.Write(conn, control.FrameStdout, b.Bytes())
	default:
		_ = frame.Write(conn, control.FrameStdout, n.copied)
	}
	b, _ := json.Marshal(did)
	_ = frame.Write(conn, control.FrameExit, b)
}
