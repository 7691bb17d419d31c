package gateway

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"peercompute/pkg/mesh"
)

// splice answers an upgraded request and copies bytes both ways until either
// side has ended. The stream is gone afterwards.
func (x *exchange) splice(res *http.Response) error {
	if x.upgrade == "" || !strings.EqualFold(res.Header.Get("Upgrade"), x.upgrade) {
		return mesh.Errorf(mesh.Invalid, "the workload switched to a protocol that was not asked for")
	}
	conn, buffered, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		return mesh.Errorf(mesh.Unsupported, "the connection cannot be upgraded").Because(err)
	}
	u := x.u
	br := u.br
	u.br = nil
	u.deadline.Store(x.p.after(x.p.cfg.UpgradeIdle))
	defer x.e.pool.discard(u)
	defer conn.Close()

	h := http.Header{}
	copyResponseHeaders(h, res.Header, x.host)
	delete(h, "Content-Type")
	h.Set("Connection", "Upgrade")
	h.Set("Upgrade", x.upgrade)
	head := &http.Response{StatusCode: res.StatusCode, ProtoMajor: 1, ProtoMinor: 1, Header: h}
	_ = conn.SetReadDeadline(time.Time{})
	if err := head.Write(conn); err != nil {
		return nil
	}

	u.limit = 1 << 62
	var wg sync.WaitGroup
	wg.Go(func() {
		// The client's early bytes are in the buffer that came with the hijack.
		err := x.copy(u.stream, buffered.Reader)
		if err == nil {
			_ = u.stream.CloseWrite()
		} else {
			u.stream.Reset()
		}
	})
	// A half-closed connection may still be read: only an error cuts both.
	if err := x.copy(conn, br); err == nil {
		closeWrite(conn)
		_ = conn.SetReadDeadline(time.Now().Add(drainTimeout))
	} else {
		conn.Close()
	}
	wg.Wait()
	br.Reset(nil)
	x.p.readers.Put(br)
	return nil
}

// copy moves bytes until src ends, which is no error. Each move puts off the
// stream's deadline.
func (x *exchange) copy(dst io.Writer, src *bufio.Reader) error {
	buf := x.p.buffers.Get().(*[copyBuffer]byte)
	defer x.p.buffers.Put(buf)
	for {
		n, err := src.Read(buf[:])
		if n > 0 {
			x.u.deadline.Store(x.p.after(x.p.cfg.UpgradeIdle))
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func closeWrite(c net.Conn) {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
	}
}
