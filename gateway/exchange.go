package gateway

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"net/netip"

	"peercompute/pkg/mesh"
	"peercompute/pkg/wire"
)

// exchange is one request and its response over one stream.
type exchange struct {
	p       *Proxy
	e       *entry
	w       http.ResponseWriter
	r       *http.Request
	client  netip.Addr
	host    string // the request's host without port
	upgrade string

	u       *upstream
	body    *bodySender // nil if the request has none
	started bool        // a byte of the response has come
	whole   bool        // the response has ended where it should, and left the stream clean
}

// carry sends the request to the entry's workload and passes the response on.
func (p *Proxy) carry(w http.ResponseWriter, r *http.Request, e *entry, client netip.Addr) {
	x := &exchange{p: p, e: e, w: w, r: r, client: client, upgrade: upgradeTo(r)}
	x.host = e.Label + "." + p.cfg.Table.cfg.Domain
	again := repeatable(r)
	err := x.attempt(false, !again)
	if err != nil && x.u != nil && x.u.reused && !x.started && again && r.Context().Err() == nil {
		err = x.attempt(true, false)
	}
	if err == nil {
		return
	}
	p.cfg.Log.Debug("request failed", "label", e.Label, "err", err)
	if r.Context().Err() != nil && !errors.Is(err, errSlowBody) {
		panic(http.ErrAbortHandler) // nobody is there to read a page
	}
	if x.body.unread() && r.ProtoMajor == 1 {
		// What is left of the body would be taken for the next request.
		w.Header().Set("Connection", "close")
	}
	failure(err).serve(w, r)
}

// attempt does the exchange over one stream. An error means that nothing has
// been passed on to the client yet; a response that breaks off later aborts the
// client's connection, as net/http does on ErrAbortHandler, so that a cut
// response never looks like a whole one.
func (x *exchange) attempt(fresh, look bool) error {
	ctx := x.r.Context()
	u, err := x.p.open(ctx, x.e, fresh, look)
	if err != nil {
		return err
	}
	x.u, x.whole = u, false
	u.deadline.Store(x.p.after(x.p.cfg.ResponseTimeout))
	u.br = x.p.readers.Get().(*bufio.Reader)
	u.br.Reset(u)
	u.limit = maxResponseHead
	stop := context.AfterFunc(ctx, u.stream.Reset)
	defer func() {
		gone := !stop()
		sent := x.body.finish(x.whole)
		br := u.br
		if br == nil {
			return // upgraded: the stream has ended already
		}
		u.br = nil
		if x.whole && sent && !gone && br.Buffered() == 0 {
			now := x.p.now.Load()
			x.e.pool.put(u, now, x.p.after(x.p.cfg.PoolIdle))
		} else {
			x.e.pool.discard(u)
		}
		br.Reset(nil)
		x.p.readers.Put(br)
	}()

	if err := x.sendHead(); err != nil {
		// The peer's refusal, if that is what ended the stream, says more.
		if err := u.accept(); errors.As(err, new(*refusal)) {
			return err
		}
		return err
	}
	x.body = x.startBody()
	res, err := x.readHead()
	if err != nil {
		if berr := x.body.clientError(); berr != nil {
			return berr
		}
		if now := x.p.now.Load(); u.deadline.Load() <= now {
			return mesh.Errorf(mesh.Timeout, "the workload did not answer in time").Because(err)
		}
		return err
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		return x.splice(res)
	}
	x.passOn(res)
	return nil
}

// sendHead writes the request's head, behind the tunnel's header on a new stream,
// in one write.
func (x *exchange) sendHead() error {
	head := x.p.heads.Get().(*[]byte)
	defer x.p.heads.Put(head)
	b := (*head)[:0]
	if !x.u.reused {
		var err error
		if b, err = (wire.TunnelHeader{Workload: x.e.Workload, Label: x.e.Label}).Append(b); err != nil {
			return err
		}
	}
	b = x.appendHead(b)
	*head = b
	_, err := x.u.stream.Write(b)
	return err
}

// readHead reads the response's head, and passes on the informational ones
// before it.
func (x *exchange) readHead() (*http.Response, error) {
	u := x.u
	if err := u.accept(); err != nil {
		return nil, err
	}
	if _, err := u.br.Peek(1); err != nil {
		return nil, err
	}
	x.started = true
	for range maxInformational {
		res, err := http.ReadResponse(u.br, x.r)
		if err != nil {
			return nil, err
		}
		if res.StatusCode < 100 {
			return nil, mesh.Errorf(mesh.Invalid, "the workload answered with status %d", res.StatusCode)
		}
		if res.StatusCode >= 200 || res.StatusCode == http.StatusSwitchingProtocols {
			return res, nil
		}
		if res.StatusCode == http.StatusContinue {
			x.body.proceed()
			continue
		}
		x.passInformational(res)
	}
	return nil, mesh.Errorf(mesh.Invalid, "the workload sent over %d informational responses", maxInformational)
}

const maxInformational = 8
