package usernet

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"peercompute/pkg/mesh"
)

const (
	nic         = 1
	queuedOut   = 256 // packets on their way to the device
	maxDatagram = 65535
)

// Net is a way out that is open. Close it when the workload has ended.
type Net struct {
	cfg   Config
	file  *os.File
	link  *channel.Endpoint
	stack *stack.Stack
	ctx   context.Context // of everything that goes on here
	stop  context.CancelFunc
	asked chan struct{} // a token for each lookup under way

	mu           sync.Mutex
	closed       bool
	conns, flows int
	work         sync.WaitGroup // Add only under mu, while not closed
}

// Open makes the device in the namespace and answers at its other end.
func Open(c Config) (*Net, error) {
	if err := c.fill(); err != nil {
		return nil, err
	}
	file, err := openDevice(c.Namespace, c.Address)
	if err != nil {
		return nil, err
	}
	n := &Net{cfg: c, file: file, asked: make(chan struct{}, maxQuestions)}
	n.ctx, n.stop = context.WithCancel(context.Background())
	if err := n.build(); err != nil {
		n.stop()
		return nil, errors.Join(err, file.Close())
	}
	n.work.Go(n.receive)
	n.work.Go(n.send)
	return n, nil
}

// build makes the stack. It takes packets to any address for its own, and knows IPv4,
// TCP and UDP, nothing else.
func (n *Net) build() error {
	n.link = channel.New(queuedOut, mtu, "")
	n.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
	})
	sack := tcpip.TCPSACKEnabled(true)
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: tcpBuffer, Max: tcpBuffer}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: tcpBuffer, Max: tcpBuffer}
	for _, set := range []func() tcpip.Error{
		func() tcpip.Error { return n.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &sack) },
		func() tcpip.Error { return n.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &receive) },
		func() tcpip.Error { return n.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &send) },
		func() tcpip.Error { return n.stack.CreateNIC(nic, n.link) },
		func() tcpip.Error { return n.stack.SetPromiscuousMode(nic, true) },
		func() tcpip.Error { return n.stack.SetSpoofing(nic, true) },
	} {
		if err := set(); err != nil {
			n.stack.Destroy()
			return mesh.Errorf(mesh.Internal, "cannot set up the workload's network: %s", err)
		}
	}
	n.stack.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}})
	n.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, tcp.NewForwarder(n.stack, tcpBuffer, maxDialling, n.tcp).HandlePacket)
	n.stack.SetTransportProtocolHandler(udp.ProtocolNumber, udp.NewForwarder(n.stack, n.udp).HandlePacket)
	return nil
}

// Close ends every connection and takes the device away.
func (n *Net) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	n.mu.Unlock()
	n.stop()
	err := n.file.Close()
	n.link.Close()
	n.work.Wait()
	n.stack.Destroy()
	return err
}

// receive takes packets from the device.
func (n *Net) receive() {
	buf := make([]byte, mtu)
	for {
		size, err := n.file.Read(buf)
		if err != nil {
			if n.ctx.Err() == nil {
				n.cfg.Log.Warn("a workload's network device is gone", "err", err)
			}
			return
		}
		if size == 0 || buf[0]>>4 != 4 { // IPv6 is off
			continue
		}
		p := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(buf[:size])})
		n.link.InjectInbound(ipv4.ProtocolNumber, p)
		p.DecRef()
	}
}

// send brings packets to the device.
func (n *Net) send() {
	for {
		p := n.link.ReadContext(n.ctx)
		if p == nil {
			return
		}
		v := p.ToView()
		// A packet that the kernel does not take is lost, as packets may be.
		_, err := n.file.Write(v.AsSlice())
		v.Release()
		p.DecRef()
		if errors.Is(err, os.ErrClosed) {
			return
		}
	}
}

// enter counts one more of what counter counts, unless there are too many.
func (n *Net) enter(counter *int, most int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || *counter >= most {
		return false
	}
	*counter++
	n.work.Add(1)
	return true
}

func (n *Net) leave(counter *int) {
	n.mu.Lock()
	*counter--
	n.mu.Unlock()
	n.work.Done()
}

// tcp answers a SYN: only once the connection outside stands is it taken here, so
// that the workload sees refusals as refusals.
func (n *Net) tcp(r *tcp.ForwarderRequest) {
	to := addrPort(r.ID().LocalAddress, r.ID().LocalPort)
	if !n.enter(&n.conns, MaxConns) {
		r.Complete(true)
		return
	}
	defer n.leave(&n.conns)
	resolver := to == netip.AddrPortFrom(n.cfg.Resolver, dnsPort)
	var out net.Conn
	if !resolver {
		ctx, cancel := context.WithTimeout(n.ctx, dialTimeout)
		var err error
		out, err = n.cfg.Dial(ctx, "tcp", to)
		cancel()
		if err != nil {
			n.cfg.Log.Debug("no connection for a workload", "to", to, "err", err)
			r.Complete(true)
			return
		}
	}
	var queue waiter.Queue
	ep, terr := r.CreateEndpoint(&queue)
	r.Complete(terr != nil)
	if terr != nil {
		if out != nil {
			out.Close()
		}
		return
	}
	ep.SocketOptions().SetKeepAlive(true)
	in := gonet.NewTCPConn(&queue, ep)
	if resolver {
		n.serveStream(in)
		return
	}
	n.splice(in, out)
}

// splice carries bytes both ways until both ends are done, or one has failed.
func (n *Net) splice(in, out net.Conn) {
	both := func() { in.Close(); out.Close() }
	defer context.AfterFunc(n.ctx, both)()
	defer both()
	var ways sync.WaitGroup
	pour := func(to, from net.Conn) {
		_, err := io.Copy(to, from)
		if half, ok := to.(interface{ CloseWrite() error }); ok && err == nil {
			err = half.CloseWrite()
		}
		if err != nil {
			both()
		}
	}
	ways.Go(func() { pour(out, in) })
	pour(in, out)
	ways.Wait()
}

// udp answers the first datagram of a flow; the stack hands later ones to its
// endpoint. Where it reports false, the kernel hears that nobody listens there.
func (n *Net) udp(r *udp.ForwarderRequest) bool {
	to := addrPort(r.ID().LocalAddress, r.ID().LocalPort)
	resolver := to == netip.AddrPortFrom(n.cfg.Resolver, dnsPort)
	if !resolver && n.cfg.Check("udp", to) != nil {
		return false
	}
	if !n.enter(&n.flows, MaxFlows) {
		return true
	}
	var queue waiter.Queue
	ep, err := r.CreateEndpoint(&queue)
	if err != nil {
		n.leave(&n.flows)
		return true
	}
	in := gonet.NewUDPConn(&queue, ep)
	go func() {
		defer n.leave(&n.flows)
		if resolver {
			n.servePackets(in)
		} else {
			n.flow(in, to)
		}
	}()
	return true
}

// addrPort is what the stack writes as two.
func addrPort(a tcpip.Address, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4(a.As4()), port)
}
