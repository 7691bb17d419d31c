package main

import (
	"bytes"
	"io"
	"net/http"

	"peercompute/pkg/control"
	"peercompute/pkg/frame"
	"peercompute/pkg/mesh"
)

func (n *fakeNode) sessionRoutes(mux *http.ServeMux, _ func(string, func(*http.Request) (any, error))) {
	mux.HandleFunc("POST /v1/workloads/{ref}/forward", n.forward)
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
