package usernet

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"
)

// ask answers a query in its time; nil if there are too many, or it is none.
func (n *Net) ask(query []byte) []byte {
	select {
	case n.asked <- struct{}{}:
	default:
		return nil
	}
	defer func() { <-n.asked }()
	ctx, cancel := context.WithTimeout(n.ctx, lookupTime)
	defer cancel()
	return answer(ctx, query, n.cfg.Lookup)
}

// servePackets answers the queries of one UDP socket. Programs ask for IPv4 and IPv6
// at once, so neither waits for the other.
func (n *Net) servePackets(in net.Conn) {
	defer in.Close()
	defer context.AfterFunc(n.ctx, func() { in.Close() })()
	var queries sync.WaitGroup
	defer queries.Wait()
	atOnce := make(chan struct{}, maxQuestions)
	buf := make([]byte, maxQuery+1)
	for {
		if in.SetReadDeadline(time.Now().Add(flowIdle)) != nil {
			return
		}
		size, err := in.Read(buf)
		if err != nil {
			return
		}
		query := append([]byte(nil), buf[:size]...)
		select {
		case atOnce <- struct{}{}:
			queries.Go(func() {
				defer func() { <-atOnce }()
				if b := n.ask(query); b != nil {
					_, _ = in.Write(b) // it asks again if this is lost
				}
			})
		default:
		}
	}
}

// serveStream answers queries over TCP, one after the other: each has two bytes of
// length before it.
func (n *Net) serveStream(in net.Conn) {
	defer in.Close()
	defer context.AfterFunc(n.ctx, func() { in.Close() })()
	for {
		if in.SetDeadline(time.Now().Add(flowIdle)) != nil {
			return
		}
		var size [2]byte
		if _, err := io.ReadFull(in, size[:]); err != nil || binary.BigEndian.Uint16(size[:]) > maxQuery {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(in, query); err != nil {
			return
		}
		b := n.ask(query)
		if b == nil {
			return
		}
		if _, err := in.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)); err != nil {
			return
		}
	}
}
