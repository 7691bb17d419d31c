package wasm

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"

	"peercompute/pkg/driver"
	"peercompute/pkg/driver/wasm/internal/fetch"
	"peercompute/pkg/driver/wasm/internal/wasi"
	"peercompute/pkg/mesh"
)

// network is peerd's end of what a run may reach: the worker gets the other, which
// stands for this run and its list of hosts. A run without a list gets none.
func (d *Driver) network(w mesh.Workload) (theirs []*os.File, end func(), err error) {
	if len(w.Spec.Hosts) == 0 {
		return nil, func() {}, nil
	}
	conn, f, err := pair()
	if err != nil {
		return nil, nil, err
	}
	c := fetch.New(fetch.Config{Hosts: w.Spec.Hosts, Resolve: d.cfg.Resolve, TLS: d.cfg.TLS, Allow: func() error {
		if d.cfg.MayConnect == nil {
			return mesh.Errorf(mesh.Denied, "this peer lets no guest use the network")
		}
		return d.cfg.MayConnect(w.Owner, w.Spec)
	}})
	ctx, stop := context.WithCancel(context.Background())
	d.work.Go(func() {
		fetch.Serve(ctx, conn, c)
		c.Close()
	})
	return []*os.File{f}, stop, nil
}

// remote is the worker's end; nil without a file.
func remote(files []*os.File) (*fetch.Remote, error) {
	if len(files) == 0 {
		return nil, nil
	}
	c, err := unixConn(files[0])
	if err != nil {
		return nil, err
	}
	return fetch.NewRemote(net.Conn(c)), nil
}

// httpCodes say what kinds of failure a guest is told apart.
var httpCodes = map[mesh.Kind]uint32{
	mesh.Denied: wasi.HTTPDenied, mesh.Invalid: wasi.HTTPInvalid, mesh.TooLarge: wasi.HTTPTooLarge, mesh.Timeout: wasi.HTTPTimeout,
}

// request makes a guest's HTTP request. Of a run that can be repeated, the answer
// is observed.
func (in *instance) request(text []byte, room int) ([]byte, uint32) {
	seen, err := in.record.Observe(driver.ObservedNetwork, func() []byte {
		in.meter.pause()
		answer, code := in.fetch(text, room)
		in.meter.resume()
		in.meter.Check()
		return append([]byte{byte(code)}, answer...)
	})
	if err == nil && len(seen) == 0 {
		err = driver.ErrDiverged
	}
	if err != nil {
		in.meter.interrupt(err)
	}
	return seen[1:], uint32(seen[0])
}

func (in *instance) fetch(text []byte, room int) ([]byte, uint32) {
	fail := func(err error) ([]byte, uint32) {
		e := mesh.AsError(err)
		code, ok := httpCodes[e.Kind]
		if !ok {
			code = wasi.HTTPUnavailable
		}
		return []byte(clip(e.Msg, min(room, 1000))), code
	}
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(text)))
	if err != nil {
		return fail(mesh.Errorf(mesh.Invalid, "the request is malformed"))
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, fetch.MaxBody+1))
	if err != nil {
		return fail(mesh.Errorf(mesh.Invalid, "the request's body is cut short"))
	}
	a, err := in.net.Do(in.meter.ctx, fetch.Request{Method: r.Method, URL: r.RequestURI, Header: r.Header, Max: int64(room), Body: body})
	if err != nil {
		return fail(err)
	}
	a.Header.Set("Content-Length", strconv.Itoa(len(a.Body)))
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 " + strconv.Itoa(a.Status) + " " + http.StatusText(a.Status) + "\r\n")
	_ = a.Header.Write(&b) // into memory
	b.WriteString("\r\n")
	b.Write(a.Body)
	if b.Len() > room {
		return fail(mesh.Errorf(mesh.TooLarge, "the answer has %d bytes, and there is room for %d", b.Len(), room))
	}
	return b.Bytes(), wasi.HTTPOK
}
