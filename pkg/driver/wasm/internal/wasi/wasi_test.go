package wasi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero/api"

	"peercompute/pkg/driver/wasm/internal/errno"
	"peercompute/pkg/driver/wasm/internal/scratch"
)

// memory is a guest's memory.
type memory struct {
	api.Memory
	b []byte
}

func (m *memory) Read(at, n uint32) ([]byte, bool) {
	if uint64(at)+uint64(n) > uint64(len(m.b)) {
		return nil, false
	}
	return m.b[at : at+n : at+n], true
}

var errSpent = errors.New("spent")

// fakeMeter has a budget, and a clock that goes on as it is waited for.
type fakeMeter struct {
	left  uint64
	now   time.Duration
	ended bool
	alone bool // nobody will ever wake the guest
}

func (m *fakeMeter) Attach(api.Module) {}

func (m *fakeMeter) Charge(units uint64) {
	if units > m.left {
		panic(errSpent)
	}
	m.left -= units
}

func (m *fakeMeter) Check() {
	if m.ended {
		panic(errSpent)
	}
}

func (m *fakeMeter) Wait(d time.Duration, wake <-chan struct{}) {
	switch {
	case d >= 0:
		m.now += d
		return
	case m.alone:
		panic(errSpent)
	}
	select {
	case <-wake:
	case <-time.After(10 * time.Second):
		panic("nobody wakes the guest")
	}
}

// stand is a guest to call functions of, with 64 KiB of memory.
type stand struct {
	*Guest
	meter    *fakeMeter
	out, err bytes.Buffer
}

func newStand(t testing.TB, change func(*Guest)) *stand {
	t.Helper()
	s := &stand{meter: &fakeMeter{left: 1 << 40}}
	s.Guest = &Guest{
		Args: []string{"name", "arg"}, Env: []string{"A=1"}, Stdin: strings.NewReader("hello"), Stdout: &s.out, Stderr: &s.err,
		Random: rand.NewChaCha8([32]byte{1}), Meter: s.meter,
		Monotonic: func() int64 { return int64(s.meter.now) + 1 }, Wall: func() int64 { return int64(time.Hour + s.meter.now) },
		mem: &memory{b: make([]byte, 64<<10)},
	}
	if change != nil {
		change(s.Guest)
	}
	s.open()
	t.Cleanup(s.Close)
	return s
}

func withFiles(t testing.TB) func(*Guest) {
	return func(g *Guest) {
		fs, err := scratch.New(scratch.Config{Bytes: 1 << 20, Now: g.Wall})
		if err != nil {
			t.Fatal(err)
		}
		g.Scratch = fs
	}
}

// call calls a function by its name, as a guest does.
func (s *stand) call(name string, p ...uint64) errno.Errno {
	for _, f := range functions {
		if f.name == name {
			if len(p) != len(f.params) {
				panic(name + ": a wrong number of parameters")
			}
			s.Meter.Charge(f.cost)
			return f.call(s.Guest, p)
		}
	}
	panic("no function " + name)
}

func (s *stand) b() []byte { return s.mem.(*memory).b }

// put puts text into the memory.
func (s *stand) put(at int, text string) (uint64, uint64) {
	return uint64(at), uint64(copy(s.b()[at:], text))
}

// vector makes one vector at 64 of n bytes from 1024.
func (s *stand) vector(n int) {
	le.PutUint32(s.b()[64:], 1024)
	le.PutUint32(s.b()[68:], uint32(n))
}

func (s *stand) u32(at int) uint32 { return le.Uint32(s.b()[at:]) }

func TestEveryFunctionIsOfOneCapability(t *testing.T) {
	seen, known := map[string]bool{}, map[string]bool{}
	for _, f := range functions {
		if seen[f.name] {
			t.Errorf("%s twice", f.name)
		}
		seen[f.name] = true
		if f.of == "" || strings.Trim(f.params, "iI") != "" {
			t.Errorf("%s: %q, %q", f.name, f.of, f.params)
		}
		if f.cost == 0 && f.call != nil {
			t.Errorf("%s costs nothing", f.name)
		}
	}
	for _, c := range Capabilities {
		known[c.Name] = true
	}
	for _, f := range functions {
		if !known[f.of] {
			t.Errorf("%s belongs to no capability that there is", f.name)
		}
	}
	if len(seen) != 46 {
		t.Errorf("%d functions, want the 46 of WASI preview 1", len(seen))
	}
}

// What the documentation says of capabilities is what the code says.
func TestCapabilitiesAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../../../../docs/capabilities.md")
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for _, c := range Capabilities {
		fmt.Fprintf(&want, "| %s | %s | %s | %s |\n", c.Name, c.Default, c.Given, c.Bounds)
	}
	if !strings.Contains(string(text), want.String()) {
		t.Errorf("docs/capabilities.md must have these rows:\n%s", &want)
	}
}

func TestArgumentsAndEnvironment(t *testing.T) {
	s := newStand(t, nil)
	if e := s.call("args_sizes_get", 0, 4); e != 0 || s.u32(0) != 2 || s.u32(4) != 9 {
		t.Errorf("%v, %d strings, %d bytes", e, s.u32(0), s.u32(4))
	}
	if e := s.call("args_get", 0, 100); e != 0 || string(s.b()[100:109]) != "name\x00arg\x00" || s.u32(0) != 100 || s.u32(4) != 105 {
		t.Errorf("%v, %q", e, s.b()[100:109])
	}
	if e := s.call("environ_get", 0, 100); e != 0 || string(s.b()[100:104]) != "A=1\x00" {
		t.Errorf("%v, %q", e, s.b()[100:104])
	}
	if e := s.call("environ_get", 0, 64<<10-1); e != errno.Fault {
		t.Errorf("past the end: %v", e)
	}
}

// Whatever is about the request makes the guest wait for it, once, and before.
func TestRequestBeginsWithTheFirstLookAtIt(t *testing.T) {
	for name, look := range map[string]func(*stand){
		"environ_sizes_get": func(s *stand) { s.call("environ_sizes_get", 0, 4) },
		"environ_get":       func(s *stand) { s.call("environ_get", 0, 100) },
		"reading":           func(s *stand) { s.vector(5); s.call("fd_read", 0, 64, 1, 0) },
		"writing":           func(s *stand) { s.vector(5); s.call("fd_write", 1, 64, 1, 0) },
		"waiting for input": func(s *stand) { s.b()[8] = eventRead; s.call("poll_oneoff", 0, 512, 1, 900) },
	} {
		t.Run(name, func(t *testing.T) {
			begun := 0
			var answer bytes.Buffer
			s := newStand(t, func(g *Guest) {
				g.Stdout = nil
				g.Begin = func() { begun++; g.Env = []string{"B=22"}; g.Stdout = &answer; g.Stdin = strings.NewReader("asked") }
			})
			s.call("args_get", 0, 100)
			s.vector(5)
			copy(s.b()[1024:], "begun")
			s.call("fd_write", 2, 64, 1, 0)
			s.call("fd_fdstat_get", 1, 200)
			if begun != 0 {
				t.Fatal("it began before anything was about the request")
			}
			clear(s.b()[:48])
			look(s)
			look(s)
			if begun != 1 {
				t.Errorf("it began %d times", begun)
			}
			if s.call("environ_sizes_get", 0, 4); s.u32(4) != 5 {
				t.Error("the environment is not that of the request")
			}
			if name == "writing" && answer.String() != "begunbegun" {
				t.Errorf("the answer is %q", &answer)
			}
		})
	}
}

func TestNoCapabilityNoEffect(t *testing.T) {
	s := newStand(t, nil)
	at, n := s.put(2000, "x")
	for name, got := range map[string]errno.Errno{
		"a directory":  s.call("fd_prestat_get", 3, 0),
		"a file":       s.call("path_open", 3, 0, at, n, 1, rightFDWrite, 0, 0, 0),
		"below stdin":  s.call("path_open", 0, 0, at, n, 1, rightFDWrite, 0, 0, 0),
		"a listing":    s.call("fd_readdir", 3, 1024, 100, 0, 0),
		"a connection": s.call("sock_accept", 3, 0, 0),
		"a signal":     s.call("proc_raise", 9),
	} {
		if got == 0 {
			t.Errorf("%s: it worked", name)
		}
	}
}

// Fuel is charged before the work: what cannot be paid is not done.
func TestFuelBeforeWork(t *testing.T) {
	for name, tc := range map[string]struct {
		left uint64
		work func(*stand)
	}{
		"output":  {64 + 1023, func(s *stand) { s.vector(8192); s.call("fd_write", 1, 64, 1, 0) }},
		"random":  {64 + 8191, func(s *stand) { s.call("random_get", 1024, 8192) }},
		"files":   {64 + 1023, func(s *stand) { s.vector(8192); s.call("fd_write", 4, 64, 1, 0) }},
		"zeros":   {64 + 1023, func(s *stand) { s.call("fd_filestat_set_size", 4, 8192) }},
		"a path":  {pathCost, func(s *stand) { s.call("path_create_directory", 3, 2000, 1) }},
		"polling": {64 + 7, func(s *stand) { s.call("poll_oneoff", 0, 512, 1, 900) }},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t, withFiles(t))
			at, n := s.put(2000, "f")
			if e := s.call("path_open", 3, 0, at, n, 1, rightFDWrite, 0, 0, 0); e != 0 || s.u32(0) != 4 {
				t.Fatal(e)
			}
			s.b()[2000] = 'd'
			before := bytes.Clone(s.b())
			s.meter.left = tc.left
			func() {
				defer func() {
					if r := recover(); r != errSpent {
						t.Errorf("it was not stopped: %v", r)
					}
				}()
				tc.work(s)
			}()
			s.vector(0)
			before = append(before[:64:64], append(bytes.Clone(s.b()[64:72]), before[72:]...)...)
			if !bytes.Equal(before, s.b()) || s.out.Len() > 0 || s.Scratch.Used() > 0 {
				t.Error("something was done that was not paid for")
			}
			if _, e := s.Scratch.Lookup(s.Scratch.Root(), "d", false); e == 0 {
				t.Error("a directory was made that was not paid for")
			}
		})
	}
}

func TestFilesOfAGuest(t *testing.T) {
	s := newStand(t, withFiles(t))
	if e := s.call("fd_prestat_get", 3, 0); e != 0 || s.u32(4) != 1 {
		t.Fatal(e)
	}
	if e := s.call("fd_prestat_dir_name", 3, 100, 1); e != 0 || s.b()[100] != '/' {
		t.Fatal(e)
	}
	at, n := s.put(2000, "dir")
	if e := s.call("path_create_directory", 3, at, n); e != 0 {
		t.Fatal(e)
	}
	at, n = s.put(2000, "dir/file")
	if e := s.call("path_open", 3, 0, at, n, 1, rightFDWrite|rightFDRead, 0, flagAppend, 0); e != 0 || s.u32(0) != 4 {
		t.Fatal(e)
	}
	s.vector(5)
	copy(s.b()[1024:], "12345")
	for range 2 {
		if e := s.call("fd_write", 4, 64, 1, 0); e != 0 || s.u32(0) != 5 {
			t.Fatal(e)
		}
		s.call("fd_seek", 4, 0, 0, 0) // appending goes to the end all the same
	}
	if e := s.call("fd_pread", 4, 64, 1, 3, 0); e != 0 || string(s.b()[1024:1029]) != "45123" {
		t.Errorf("%v, %q", e, s.b()[1024:1029])
	}
	if e := s.call("fd_filestat_get", 4, 200); e != 0 || le.Uint64(s.b()[232:]) != 10 || s.b()[216] != typeFile || le.Uint64(s.b()[248:]) != uint64(time.Hour) {
		t.Errorf("%v, %d bytes", e, le.Uint64(s.b()[232:]))
	}
	if e := s.call("fd_seek", 4, ^uint64(0), 2, 0); e != 0 || le.Uint64(s.b()) != 9 {
		t.Errorf("seek: %v", e)
	}
	if e := s.call("fd_seek", 4, 1<<63, 2, 0); e != errno.Invalid {
		t.Errorf("seek to nowhere: %v", e)
	}
	if e := s.call("fd_renumber", 4, 1); e != 0 || s.call("fd_close", 4) != errno.BadFD {
		t.Errorf("renumber: %v", e)
	}
	s.call("fd_write", 1, 64, 1, 0)
	if s.out.Len() > 0 {
		t.Error("what was renumbered still goes to the output")
	}
	// A listing in pieces that are too small for one entry and more.
	at, n = s.put(2000, "dir")
	if e := s.call("path_open", 3, 1, at, n, 2, rightFDRead, 0, 0, 0); e != 0 {
		t.Fatal(e)
	}
	dir := uint64(s.u32(0))
	if e := s.call("fd_readdir", dir, 4096, 30, 2, 0); e != 0 || s.u32(0) != 28 || string(s.b()[4096+24:4096+28]) != "file" {
		t.Errorf("%v, %d bytes", e, s.u32(0))
	}
	if e := s.call("fd_readdir", dir, 4096, 20, 0, 0); e != 0 || s.u32(0) != 20 {
		t.Errorf("%v, %d bytes; a full buffer means that there is more", e, s.u32(0))
	}
	if e := s.call("path_open", 3, 1, at, n, 0, rightFDWrite, 0, 0, 0); e != errno.IsDir {
		t.Errorf("a directory opened for writing: %v", e)
	}
}

func TestWaitingForTime(t *testing.T) {
	s := newStand(t, nil)
	sub := func(i int, user uint64, ns uint64, flags uint16) {
		b := s.b()[i*subscriptionLen:][:subscriptionLen]
		clear(b)
		le.PutUint64(b, user)
		le.PutUint32(b[16:], clockMonotonic)
		le.PutUint64(b[24:], ns)
		le.PutUint16(b[40:], flags)
	}
	sub(0, 7, uint64(time.Second), 0)
	sub(1, 8, uint64(2*time.Second), 0)
	if e := s.call("poll_oneoff", 0, 512, 2, 900); e != 0 || s.u32(900) != 1 || le.Uint64(s.b()[512:]) != 7 || s.meter.now != time.Second {
		t.Errorf("%v, %d events, after %s", e, s.u32(900), s.meter.now)
	}
	sub(0, 9, uint64(3*time.Second), 1) // at a time, not after one
	if e := s.call("poll_oneoff", 0, 512, 1, 900); e != 0 || s.meter.now != 3*time.Second-1 {
		t.Errorf("%v, after %s", e, s.meter.now)
	}
	sub(0, 9, 1<<63, 0)
	sub(1, 9, 0, 0)
	if e := s.call("poll_oneoff", 0, 512, 2, 900); e != 0 || s.u32(900) != 1 {
		t.Errorf("a wait without end beside one of nothing: %v", e)
	}
	if e := s.call("poll_oneoff", 0, 512, 0, 900); e != errno.Invalid {
		t.Errorf("waiting for nothing: %v", e)
	}
}

func TestConnections(t *testing.T) {
	l := NewListener(2)
	s := newStand(t, func(g *Guest) { g.Listener = l })
	if s.call("fd_fdstat_get", 3, 0); s.b()[0] != typeSocket {
		t.Errorf("the listener is of type %d", s.b()[0])
	}
	if e := s.call("fd_prestat_get", 3, 0); e != 0 || s.b()[0] == prestatDir {
		t.Errorf("programs would take it for a directory, or for the end: %v", e)
	}
	s.call("fd_fdstat_set_flags", 3, flagNonblock)
	if e := s.call("sock_accept", 3, flagNonblock, 0); e != errno.Again {
		t.Errorf("nobody connected: %v", e)
	}
	select {
	case <-l.Ready():
	default:
		t.Error("it is not ready")
	}
	c, err := l.Dial()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Dial(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Dial(); err == nil {
		t.Error("a third connection found room")
	}
	if e := s.call("sock_accept", 3, flagNonblock, 0); e != 0 || s.u32(0) != 4 {
		t.Fatal(e)
	}
	s.vector(3)
	if e := s.call("fd_read", 4, 64, 1, 0); e != errno.Again {
		t.Errorf("nothing was sent: %v", e)
	}
	// The guest waits for what another goroutine sends.
	sub := func() {
		clear(s.b()[:subscriptionLen])
		s.b()[8] = eventRead
		le.PutUint32(s.b()[16:], 4)
	}
	sub()
	go io.WriteString(c, "hello")
	if e := s.call("poll_oneoff", 0, 512, 1, 900); e != 0 || s.u32(900) != 1 {
		t.Fatal(e)
	}
	if e := s.call("fd_read", 4, 64, 1, 0); e != 0 || s.u32(0) != 3 || string(s.b()[1024:1027]) != "hel" {
		t.Errorf("%v, %q", e, s.b()[1024:1027])
	}
	s.vector(100)
	if e := s.call("fd_read", 4, 64, 1, 0); e != 0 || s.u32(0) != 2 {
		t.Errorf("%v, %d bytes", e, s.u32(0))
	}
	if e := s.call("fd_write", 4, 64, 1, 0); e != 0 || s.u32(0) != 100 {
		t.Error(e)
	}
	b := make([]byte, 200)
	if n, err := c.Read(b); err != nil || n != 100 {
		t.Errorf("%d bytes, %v", n, err)
	}
	c.CloseWrite()
	sub()
	if e := s.call("poll_oneoff", 0, 512, 1, 900); e != 0 || le.Uint16(s.b()[512+24:])&eventHangup == 0 {
		t.Errorf("the end does not show: %v", e)
	}
	if e := s.call("fd_read", 4, 64, 1, 0); e != 0 || s.u32(0) != 0 {
		t.Errorf("at the end: %v, %d bytes", e, s.u32(0))
	}
	if e := s.call("sock_shutdown", 4, 2); e != 0 {
		t.Error(e)
	}
	if _, err := c.Read(b); err != io.EOF {
		t.Errorf("after the guest's end: %v", err)
	}
	if e := s.call("fd_write", 4, 64, 1, 0); e != errno.Pipe {
		t.Errorf("after its own end: %v", e)
	}
	s.Close()
	if _, err := l.Dial(); err == nil {
		t.Error("a guest that is gone takes connections")
	}
}

// Neither side gets far ahead of the other, and nothing is lost on the way.
func TestConnectionHasBackpressure(t *testing.T) {
	l := NewListener(1)
	s := newStand(t, func(g *Guest) { g.Listener = l })
	c, err := l.Dial()
	if err != nil {
		t.Fatal(err)
	}
	s.call("sock_accept", 3, 0, 0)
	const total = 1 << 20
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(bytes.Repeat([]byte("0123456789abcdef"), total/16))
		sent <- err
	}()
	var got bytes.Buffer
	for got.Len() < total {
		s.vector(30_000)
		if e := s.call("fd_read", 4, 64, 1, 0); e != 0 {
			t.Fatal(e)
		}
		got.Write(s.b()[1024:][:s.u32(0)])
		if n, _ := c.c.in.readable(); n > maxPipe {
			t.Fatalf("%d bytes wait", n)
		}
	}
	if err := <-sent; err != nil || !bytes.Equal(got.Bytes(), bytes.Repeat([]byte("0123456789abcdef"), total/16)) {
		t.Errorf("%v, or not what was sent", err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := c.Write(make([]byte, total))
		done <- err
	}()
	s.call("fd_close", 4)
	if err := <-done; err == nil {
		t.Error("a write to a connection that the guest closed succeeds")
	}
}

// Whatever numbers a guest passes, nothing outside its memory is touched, nothing
// panics, and nothing waits that was not asked to.
func FuzzCalls(f *testing.F) {
	f.Add(uint64(1), []byte("f/../g\x00abc"))
	f.Add(uint64(77), bytes.Repeat([]byte{0xff, 0, 3}, 50))
	f.Fuzz(func(t *testing.T, seed uint64, text []byte) {
		l := NewListener(2)
		s := newStand(t, func(g *Guest) { withFiles(t)(g); g.Listener = l })
		s.meter.left = 1 << 24
		s.meter.now, s.meter.alone = time.Second, true
		copy(s.b()[2000:], text)
		r := rand.New(rand.NewPCG(seed, 1))
		number := func() uint64 {
			switch r.IntN(6) {
			case 0:
				return uint64(r.IntN(8))
			case 1:
				return 2000 + uint64(r.IntN(len(text)+1))
			case 2:
				return uint64(r.IntN(len(text) + 4))
			case 3:
				return 64<<10 - uint64(r.IntN(70))
			case 4:
				return uint64(r.Uint32())
			}
			return r.Uint64()
		}
		defer func() {
			if p := recover(); p != nil && p != errSpent {
				panic(p)
			}
		}()
		for range 40 {
			fn := functions[r.IntN(len(functions))]
			if fn.call == nil || fn.name == "sock_accept" || fn.name == "poll_oneoff" && r.IntN(2) == 0 {
				continue
			}
			p := make([]uint64, len(fn.params))
			for i := range p {
				if p[i] = number(); fn.params[i] == 'i' {
					p[i] = uint64(uint32(p[i]))
				}
			}
			s.Meter.Charge(fn.cost)
			fn.call(s.Guest, p)
		}
	})
}
