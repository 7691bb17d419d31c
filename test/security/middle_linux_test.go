package security

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"peercompute/test/internal/testmesh"
)

// middle is whoever controls the way between two nodes.
type middle struct {
	b  *between
	to string // bob, or somebody else

	mu    sync.Mutex
	seen  bytes.Buffer
	total int // bytes or packets of the latest connection
	do    func(at int, p []byte) []byte
	hits  int // times that something was changed
	// TCP connections that carried a change, and those of them that an end closed then.
	altered, ended int
	conns          map[net.Conn]bool
	ln             net.Listener
	packet         net.PacketConn
	wg             sync.WaitGroup
}

// meddle sets what is done to what passes from now on, and ends what is under way.
func (m *middle) meddle(to string, do func(at int, p []byte) []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.to, m.do, m.total, m.hits = to, do, 0, 0
	m.altered, m.ended = 0, 0
	for c := range m.conns {
		c.Close()
	}
}

// pair is one connection over TCP, of two halves.
type pair struct{ altered, over bool }

// change notes that a connection carries a change.
func (m *middle) change(c *pair) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !c.altered && !c.over {
		c.altered = true
		m.altered++
	}
}

// end notes how a connection ended: who wants to know whether a change was noticed
// counts only the ends that were not the middle's own doing.
func (m *middle) end(c *pair, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.altered && !c.over && !errors.Is(err, net.ErrClosed) {
		m.ended++
	}
	c.over = true
}

func (m *middle) alteredNow() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.altered
}

// unnoticed is how many changed connections both ends still hold to be good.
func (m *middle) unnoticed() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.altered - m.ended
}

// pass is what goes on instead of p; nil ends the connection.
func (m *middle) pass(p []byte) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen.Write(p)
	at := m.total
	m.total += len(p)
	if m.do == nil {
		return p
	}
	out := m.do(at, bytes.Clone(p))
	if !bytes.Equal(out, p) {
		m.hits++
	}
	return out
}

func (m *middle) state() (total, hits int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.total, m.hits
}

func (m *middle) open(t *testing.T) {
	t.Helper()
	m.conns = map[net.Conn]bool{}
	err := m.b.inMiddle(func() (err error) {
		if m.ln, err = net.Listen("tcp", middleForAlice+":4001"); err == nil {
			m.packet, err = net.ListenPacket("udp", middleForAlice+":4001")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	m.wg.Go(m.streams)
	m.wg.Go(m.packets)
	t.Cleanup(func() {
		m.ln.Close()
		m.packet.Close()
		m.meddle("", nil)
		m.wg.Wait()
	})
}

func (m *middle) track(c net.Conn, on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if on {
		m.conns[c] = true
	} else {
		delete(m.conns, c)
		c.Close()
	}
}

func (m *middle) dial(network string) (c net.Conn, err error) {
	m.mu.Lock()
	to := m.to
	m.mu.Unlock()
	err = m.b.inMiddle(func() (err error) { c, err = net.Dial(network, to); return err })
	return c, err
}

func (m *middle) streams() {
	for {
		a, err := m.ln.Accept()
		if err != nil {
			return
		}
		m.track(a, true)
		b, err := m.dial("tcp")
		if err != nil {
			m.track(a, false)
			continue
		}
		m.track(b, true)
		m.mu.Lock()
		m.total = 0
		m.mu.Unlock()
		both := &pair{}
		for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
			m.wg.Go(func() {
				defer m.track(way[0], false)
				defer m.track(way[1], false)
				buf := make([]byte, 64<<10)
				for {
					n, err := way[0].Read(buf)
					if n > 0 {
						out := m.pass(buf[:n])
						if out == nil {
							m.end(both, net.ErrClosed)
							return
						}
						if !bytes.Equal(out, buf[:n]) {
							m.change(both)
						}
						if _, err := way[1].Write(out); err != nil {
							m.end(both, err)
							return
						}
					}
					if err != nil {
						m.end(both, err)
						return
					}
				}
			})
		}
	}
}

func (m *middle) packets() {
	flows := map[string]net.Conn{}
	buf := make([]byte, 64<<10)
	for {
		n, from, err := m.packet.ReadFrom(buf)
		if err != nil {
			return
		}
		b := flows[from.String()]
		if b == nil {
			if b, err = m.dial("udp"); err != nil {
				continue
			}
			m.track(b, true)
			flows[from.String()] = b
			m.wg.Go(func() {
				back := make([]byte, 64<<10)
				for {
					n, err := b.Read(back)
					if err != nil {
						return
					}
					if out := m.pass(back[:n]); out != nil {
						_, _ = m.packet.WriteTo(out, from)
					}
				}
			})
		}
		if out := m.pass(buf[:n]); out != nil {
			if _, err := b.Write(out); err != nil {
				delete(flows, from.String()) // meddle closed it
			}
		}
	}
}

// A man in the middle, between network namespaces, sees nothing of what passes; and
// whatever it does to it, bob ends up with exactly what alice signed, or nothing
// (test plan, V6). Over TCP and over QUIC.
func TestManBetweenNamespaces(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"tcp", "quic"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			b := newBetween(t)
			m := testmesh.New(t)
			addr := func(ip string) string {
				if kind == "tcp" {
					return "/ip4/" + ip + "/tcp/4001"
				}
				return "/ip4/" + ip + "/udp/4001/quic-v1"
			}
			alice, bob, eve := m.NewPeer("alice"), m.NewPeer("bob", "--listen", addr(bobIP)), m.NewPeer("eve", "--listen", strings.ReplaceAll(addr(bobIP), "4001", "4002"))
			alice.Wrap = []string{"ip", "netns", "exec", b.alice}
			bob.Wrap = []string{"ip", "netns", "exec", b.bob}
			eve.Wrap = bob.Wrap
			for _, n := range []*testmesh.Node{alice, bob, eve} {
				n.Start()
			}
			bob.Must("peers", "add", alice.ID().String(), "--name", "alice", "--allow", "deploy", "--max-workloads", "50", "--requests", "100000/min", "--memory", "8G", "--cpus", "16", "--disk", "8G")
			mid := &middle{b: b, to: bobIP + ":4001"}
			mid.open(t)
			alice.Must("peers", "add", addr(middleForAlice)+"/p2p/"+bob.ID().String(), "--name", "bob")

			const flips = 6
			const marker = "plaintext that nobody on the way may read"
			module := testmesh.Tiny(t, marker)
			names := 0
			deploy := func() (string, testmesh.Result) {
				names++
				name := fmt.Sprintf("secretname-%d", names)
				return name, alice.Ctl("deploy", module, "--peer", "bob", "--name", name)
			}
			name, r := deploy()
			if r.Code != 0 {
				t.Fatal(r.Stderr)
			}
			good := map[string]bool{name: true}
			total, _ := mid.state()

			// Eve has a key of her own, and answers where bob should.
			mid.meddle(bobIP+":4002", nil)
			if _, r := deploy(); r.Code == 0 {
				t.Error("another's key was taken for bob's")
			}
			tried, failed, altered := 0, 0, 0
			hit := func(what string, do func(at int, p []byte) []byte) {
				t.Helper()
				alice.Kill() // a fresh process dials at once, whatever failed before
				alice.Start()
				mid.meddle(bobIP+":4001", do)
				name, r := deploy()
				if _, hits := mid.state(); hits == 0 {
					if r.Code == 0 {
						good[name] = true
					}
					return // it never came to that
				}
				if kind == "tcp" { // nothing there makes up for a changed byte, wherever it lies
					within(t, 30*time.Second, what+" to be noticed", func() bool { return mid.unnoticed() == 0 })
					altered += mid.alteredNow()
				}
				tried++
				if r.Code == 0 { // what was changed was thrown away, and sent once more
					good[name] = true
				} else {
					failed++
				}
			}
			flipAt := func(n int) func(int, []byte) []byte {
				return func(at int, p []byte) []byte {
					if i := n - at; i >= 0 && i < len(p) {
						p[i] ^= 1
					}
					return p
				}
			}
			for i := range flips {
				hit("flip", flipAt(1+i*total/flips))
			}
			hit("every packet flipped", func(_ int, p []byte) []byte { p[len(p)/2] ^= 0x10; return p })
			for _, part := range []int{4, 2} {
				hit("cut", func(at int, p []byte) []byte {
					if at+len(p) > total/part {
						return nil
					}
					return p
				})
			}
			var held []byte
			hit("reordered", func(at int, p []byte) []byte { // one piece is swapped with the next
				switch {
				case at < total/3 || held == nil && at > total*2/3:
					return p
				case held == nil:
					held = p
					return []byte{}
				}
				out := append(p, held...)
				held = []byte{}
				return out
			})
			alice.Kill()
			alice.Start()
			mid.meddle(bobIP+":4001", nil)
			within(t, time.Minute, "alice to get through again", func() bool {
				name, r := deploy()
				good[name] = r.Code == 0
				return r.Code == 0
			})

			// Bob runs what alice signed: no name that she did not send, every module the one she sent.
			var have []struct{ Name, Owner string }
			if err := json.Unmarshal([]byte(bob.Must("ps", "-o", "json")), &have); err != nil {
				t.Fatal(err)
			}
			for _, w := range have {
				if n, err := strconv.Atoi(strings.TrimPrefix(w.Name, "secretname-")); err != nil || n < 1 || n > names || w.Owner != "alice" {
					t.Errorf("bob runs %q of %s, which alice never asked for", w.Name, w.Owner)
				}
			}
			ran := map[string]bool{}
			for _, w := range have {
				ran[w.Name] = true
			}
			for name, ok := range good {
				if ok && !ran[name] {
					t.Errorf("bob acknowledged %s and does not run it", name)
				}
			}
			data, err := os.ReadFile(module)
			if err != nil {
				t.Fatal(err)
			}
			mid.mu.Lock()
			seen := bytes.Clone(mid.seen.Bytes())
			mid.mu.Unlock()
			for what, text := range map[string][]byte{
				"the module": data[:64], "its text": []byte(marker), "a name": []byte("secretname-"), "a protocol": []byte("/peercompute/"), "alice's ID": []byte(alice.ID().String()), "alice's raw ID": []byte(alice.ID()),
			} {
				if bytes.Contains(seen, text) {
					t.Errorf("the middle saw %s in plain text", what)
				}
			}
			if tried < flips || len(seen) < 10_000 {
				t.Errorf("only %d changes took effect in %d bytes: it proves nothing", tried, len(seen))
			}
			if kind == "tcp" && altered < flips {
				t.Errorf("only %d connections carried a change: it proves nothing", altered)
			}
			t.Logf("of %d changes to what passed %d ended the request and %d were made good or came behind the answer; %d TCP connections carried one and all were ended for it; 0 altered, 0 plaintext in %d bytes", tried, failed, tried-failed, altered, len(seen))
			for _, w := range have {
				bob.Must("rm", "-f", w.Name)
			}
		})
	}
}
