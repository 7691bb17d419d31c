package peernet

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
)

// countingConn counts the writes that reach it.
type countingConn struct {
	net.Conn
	mu     sync.Mutex
	writes [][]byte
}

func (c *countingConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes = append(c.writes, bytes.Clone(b))
	return len(b), nil
}

func TestBatchHoldsAndFlushes(t *testing.T) {
	under := &countingConn{}
	b := newBatch(under)
	write := func(s string) {
		t.Helper()
		if n, err := b.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatalf("wrote %d, %v", n, err)
		}
	}
	write("straight")
	b.Hold()
	write("one ")
	write("two ")
	if len(under.writes) != 1 {
		t.Fatalf("%d writes while held, want only the one before", len(under.writes))
	}
	if err := b.Flush(); err != nil {
		t.Fatal(err)
	}
	write("after")
	if got := string(bytes.Join(under.writes, []byte("|"))); got != "straight|one two |after" {
		t.Errorf("written: %q", got)
	}
}

// reentrantConn writes to the batch while the batch flushes to it, as an alert
// from another goroutine may.
type reentrantConn struct {
	countingConn
	batch *batch
	late  bool
}

func (c *reentrantConn) Write(b []byte) (int, error) {
	if !c.late {
		c.late = true
		if _, err := c.batch.Write([]byte("late")); err != nil {
			return 0, err
		}
	}
	return c.countingConn.Write(b)
}

func TestBatchLateWriteIsNotTrapped(t *testing.T) {
	under := &reentrantConn{}
	under.batch = newBatch(under)
	under.batch.Hold()
	_, _ = under.batch.Write([]byte("held "))
	if err := under.batch.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := string(bytes.Join(under.writes, nil)); got != "held late" {
		t.Errorf("written: %q", got)
	}
}

// records makes TLS records of the given sizes, and what is in them.
func records(sizes ...int) (out []byte) {
	for i, n := range sizes {
		out = append(out, 23, 3, 3, byte(n>>8), byte(n))
		out = append(out, bytes.Repeat([]byte{byte('a' + i)}, n)...)
	}
	return out
}

func TestBatchReadsAhead(t *testing.T) {
	a, c := tcpPair(t)
	defer a.Close()
	defer c.Close()
	b := newBatch(c)
	var want []byte
	for i := range 300 {
		want = append(want, records(i*i%16401)...)
	}
	go func() {
		_, _ = a.Write(want)
		a.Close()
	}()
	if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	if n := len(b.in.buf); n != mostAhead {
		t.Errorf("the buffer has %d bytes after megabytes, want %d", n, mostAhead)
	}
	if _, err := b.SyscallConn(); err != nil {
		t.Errorf("the socket cannot be reached through a batch: %v", err)
	}
	if batchUnder(b) != b || batchUnder(a) != nil {
		t.Error("batchUnder finds the wrong thing")
	}
}

// piecesConn gives one piece with each read.
type piecesConn struct {
	net.Conn
	pieces [][]byte
	reads  int
}

func (c *piecesConn) Read(b []byte) (int, error) {
	if len(c.pieces) == 0 {
		return 0, io.EOF
	}
	c.reads++
	n := copy(b, c.pieces[0])
	if c.pieces[0] = c.pieces[0][n:]; len(c.pieces[0]) == 0 {
		c.pieces = c.pieces[1:]
	}
	return n, nil
}

// TestBatchReady: a read never goes past the end of a record, and whether another
// whole one is here is known without asking the system.
func TestBatchReady(t *testing.T) {
	all := records(10, 0, 300, 20)
	under := &piecesConn{pieces: [][]byte{all[:328], all[328:]}} // the last record's header is cut
	b := newBatch(under)
	buf := make([]byte, 1000)
	for _, want := range []struct {
		n, reads int
		ready    bool
	}{{15, 1, true}, {5, 1, true}, {305, 1, false}, {25, 2, false}} {
		n, err := b.Read(buf)
		if err != nil || n != want.n || b.Ready() != want.ready || under.reads != want.reads {
			t.Errorf("read %d (%v) with %d reads below, ready %v; want %+v", n, err, under.reads, b.Ready(), want)
		}
	}
	if _, err := b.Read(buf); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}

	b = newBatch(&piecesConn{pieces: [][]byte{records(10, 10)}})
	if n, err := b.Read(buf[:7]); n != 7 || err != nil || b.Ready() {
		t.Errorf("in the middle of a record: %d, %v, ready %v", n, err, b.Ready())
	}
}
