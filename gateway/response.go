package gateway

import (
	"errors"
	"io"
	"math"
	"net/http"
	"slices"

	"golang.org/x/net/http/httpguts"
)

// passInformational passes on a 1xx response such as 103 Early Hints.
func (x *exchange) passInformational(res *http.Response) {
	if x.r.ProtoMajor == 1 && x.r.ProtoMinor == 0 {
		return // HTTP/1.0 knows none
	}
	h := x.w.Header()
	copyResponseHeaders(h, res.Header, x.host)
	x.w.WriteHeader(res.StatusCode)
	clear(h)
}

// passOn writes the response to the client as it comes. It panics with
// http.ErrAbortHandler if the response breaks off.
func (x *exchange) passOn(res *http.Response) {
	u := x.u
	u.limit = math.MaxInt64
	u.deadline.Store(x.p.after(x.p.cfg.IdleTimeout))
	h := x.w.Header()
	copyResponseHeaders(h, res.Header, x.host)
	announced := make([]string, 0, len(res.Trailer))
	for k := range res.Trailer {
		announced = append(announced, k)
		h.Add("Trailer", k)
	}
	if x.body.unread() && x.r.ProtoMajor == 1 {
		// What the client still sends would be taken for its next request.
		h.Set("Connection", "close")
	}
	x.body.respond()
	x.w.WriteHeader(res.StatusCode)
	if res.Body != http.NoBody {
		x.passBody(res)
	}
	for k, vv := range res.Trailer {
		switch {
		case !httpguts.ValidTrailerHeader(k) || hopByHop(k):
		case slices.Contains(announced, k):
			h[k] = vv
		default:
			h[http.TrailerPrefix+k] = vv
		}
	}
	x.whole = !res.Close
}

// passBody copies the response's body. Whatever has come is flushed before the
// copy waits for more, so events arrive as they are sent.
func (x *exchange) passBody(res *http.Response) {
	u := x.u
	buf := x.p.buffers.Get().(*[copyBuffer]byte)
	defer x.p.buffers.Put(buf)
	flush := http.NewResponseController(x.w).Flush
	left := res.ContentLength // below 0: not known
	for {
		if u.br.Buffered() == 0 {
			_ = flush()
		}
		n, err := res.Body.Read(buf[:])
		if n > 0 {
			u.deadline.Store(x.p.after(x.p.cfg.IdleTimeout))
			if _, err := x.w.Write(buf[:n]); err != nil {
				panic(http.ErrAbortHandler)
			}
			u.deadline.Store(x.p.after(x.p.cfg.IdleTimeout))
		}
		left -= int64(n)
		if errors.Is(err, io.EOF) || res.ContentLength >= 0 && left == 0 {
			return
		}
		if err != nil {
			x.p.cfg.Log.Debug("response broke off", "label", x.e.Label, "err", err)
			panic(http.ErrAbortHandler)
		}
	}
}
