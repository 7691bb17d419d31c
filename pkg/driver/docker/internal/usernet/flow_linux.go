package usernet

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"
)

// flow carries datagrams both ways until none came for a while.
func (n *Net) flow(in net.Conn, to netip.AddrPort) {
	defer in.Close()
	ctx, cancel := context.WithTimeout(n.ctx, dialTimeout)
	out, err := n.cfg.Dial(ctx, "udp", to)
	cancel()
	if err != nil {
		n.cfg.Log.Debug("no flow for a workload", "to", to, "err", err)
		return
	}
	defer out.Close()
	both := func() { in.Close(); out.Close() }
	defer context.AfterFunc(n.ctx, both)()
	var ways sync.WaitGroup
	pour := func(to, from net.Conn) {
		defer both()
		buf := make([]byte, maxDatagram)
		for {
			if from.SetReadDeadline(time.Now().Add(flowIdle)) != nil {
				return
			}
			size, err := from.Read(buf)
			if err != nil {
				return
			}
			if _, err := to.Write(buf[:size]); err != nil {
				return
			}
		}
	}
	ways.Go(func() { pour(out, in) })
	pour(in, out)
	ways.Wait()
}
