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
	b.hold()
	write("one ")
	write("two ")
	if len(under.writes) != 1 {
		t.Fatalf("%d writes while held, want only the one before", len(under.writes))
	}
	if err := b.flush(); err != nil {
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
	under.batch.hold()
	_, _ = under.batch.Write([]byte("held "))
	if err := under.batch.flush(); err != nil {
		t.Fatal(err)
	}
	if got := string(bytes.Join(under.writes, nil)); got != "held late" {
		t.Errorf("written: %q", got)
	}
}

func TestBatchReadsAhead(t *testing.T) {
	a, c := tcpPair(t)
	defer a.Close()
	defer c.Close()
	b := newBatch(c)
	want := bytes.Repeat([]byte("0123456789"), 10_000)
	go func() {
		_, _ = a.Write(want)
		a.Close()
	}()
	if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	if _, err := b.SyscallConn(); err != nil {
		t.Errorf("the socket cannot be reached through a batch: %v", err)
	}
	if batchUnder(b) != b || batchUnder(a) != nil {
		t.Error("batchUnder finds the wrong thing")
	}
}
