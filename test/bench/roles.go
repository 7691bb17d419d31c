package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"peercompute/pkg/identity"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/publish"
	"peercompute/pkg/request"
	"peercompute/pkg/wire"
)

// The bench plays three parts in processes of their own, by running itself: a bare
// HTTP server, one that starts a native CGI program for each request, and a peer that tunnels to processes which are no workloads. The
// last is the product's own end of the tunnel without what stands around it, so
// that the very same server can be reached directly and through the gateway.
// All end with their standard input.
const (
	rolePrefix = "role-"
	roleBare   = rolePrefix + "bare"
	roleCGI    = rolePrefix + "cgi"
	rolePeer   = rolePrefix + "peer"
)

func playRole(role string, args []string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	in := bufio.NewReader(os.Stdin)
	switch {
	case role == roleBare && len(args) == 1:
		return serveBare(args[0], in)
	case role == roleCGI && len(args) == 2:
		return serveCGI(args[0], args[1], in)
	case role == rolePeer && len(args) >= 3:
		return tunnel(ctx, args[0], args[1], args[2:], in)
	}
	return errors.New("this part is played by the bench only")
}

// part is a role that runs: its standard input keeps it alive.
type part struct {
	*process
	in    io.WriteCloser
	lines *bufio.Reader
}

func (b *bench) play(role string, args ...string) (*part, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, append([]string{role}, args...)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe() // not StdoutPipe, which Wait would close under the reader
	if err != nil {
		return nil, err
	}
	defer w.Close()
	cmd.Stdout = w
	p, err := b.start(fmt.Sprintf("%s-%d", role, len(b.started)), cmd)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return &part{p, in, bufio.NewReader(r)}, nil
}

// line reads what the part says next.
func (p *part) line() (string, error) {
	s, err := p.lines.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("%s ended: %w", p.name, err)
	}
	return strings.TrimSpace(s), nil
}

const bareBody = 100 // bytes

// serveBare answers every request with the same 100 bytes and does nothing else:
// a workload that takes next to no time of its own hides nothing of a proxy's.
func serveBare(addr string, in io.Reader) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	defer l.Close()
	answer := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", bareBody, strings.Repeat("x", bareBody))
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go answerBare(c, answer)
		}
	}()
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, in)
	return err
}

func answerBare(c net.Conn, answer []byte) {
	defer c.Close()
	in := bufio.NewReader(c)
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return
		}
		if len(line) > 2 { // not the empty line that ends a request without a body
			continue
		}
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

// serveCGI starts program for every request, as a web server of old does.
func serveCGI(addr, program string, in io.Reader) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	defer l.Close()
	go func() { _ = http.Serve(l, &cgi.Handler{Path: program, Root: "/", Stderr: os.Stderr}) }() // until l is closed
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, in)
	return err
}

// only trusts one peer.
type only mesh.PeerID

func (o only) Allowed(p mesh.PeerID) bool { return p == mesh.PeerID(o) }

// tunnel is the peer. It prints its ID, publishes one name for each of the
// addresses at the gateway that gateway names, and prints their URLs. Its key is
// in home.
func tunnel(ctx context.Context, home, gateway string, addrs []string, in *bufio.Reader) error {
	key, err := identity.Create(home)
	if err != nil {
		return err
	}
	addr, gw, err := peernet.ParseAddr(gateway)
	if err != nil {
		return err
	}
	n, err := peernet.New(peernet.Config{Key: key.Private, Gate: only(gw)})
	if err != nil {
		return err
	}
	defer n.Close()
	var d net.Dialer
	to := map[mesh.WorkloadID]string{}
	tunnels, err := publish.New(publish.Config{
		Allow: func(_ mesh.PeerID, id mesh.WorkloadID) error {
			if to[id] == "" {
				return mesh.Errorf(mesh.NotFound, "there is no workload %s", id)
			}
			return nil
		},
		Dial: func(ctx context.Context, id mesh.WorkloadID) (net.Conn, func(), error) {
			c, err := d.DialContext(ctx, "tcp", to[id])
			return c, func() {}, err
		},
	})
	if err != nil {
		return err
	}
	ids := make([]mesh.WorkloadID, len(addrs))
	for i, a := range addrs {
		ids[i] = mesh.NewWorkloadID([32]byte{byte(i)})
		to[ids[i]] = a
	}
	n.Handle(wire.TunnelProtocol, func(ctx context.Context, s *peernet.Stream) { tunnels.Serve(ctx, s.Peer(), s) })
	fmt.Println(key.ID)
	if _, err := in.ReadString('\n'); err != nil { // the gateway trusts it now
		return err
	}
	n.Learn(gw, []string{addr})
	if err := n.Connect(ctx, gw); err != nil {
		return err
	}
	ask := request.NewClient(key, n, time.Now)
	for i, id := range ids {
		var out wire.Published
		if err := ask.Do(ctx, gw, wire.VerbPublish, wire.Publish{Workload: id, Name: fmt.Sprintf("%s%d", filepath.Base(home), i)}, &out); err != nil {
			return err
		}
		fmt.Println(out.URL)
	}
	_, err = io.Copy(io.Discard, in)
	return err
}
