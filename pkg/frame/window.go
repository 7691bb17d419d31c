package frame

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"
)

// This file is flow control for one direction of a stream whose reader must never
// wait: it has to see at once that the other side is gone. A sender sends no more than
// was not taken yet; a receiver that took something says so.

// WindowSize is how much may be under way and not taken, in bytes.
const WindowSize = 256 << 10

// Window is the sender's side.
type Window struct {
	mu    sync.Mutex
	left  int
	freed chan struct{} // closed when left grows
}

// NewWindow is a window of which nothing is used.
func NewWindow() *Window { return &Window{left: WindowSize, freed: make(chan struct{})} }

// Took is told what arrives as a credit from the receiver.
func (w *Window) Took(payload []byte) error {
	if len(payload) != 4 {
		return errors.New("malformed credit")
	}
	n := binary.BigEndian.Uint32(payload)
	w.mu.Lock()
	defer w.mu.Unlock()
	if n > uint32(WindowSize-w.left) {
		return errors.New("more was taken than was sent")
	}
	w.left += int(n)
	close(w.freed)
	w.freed = make(chan struct{})
	return nil
}

// Copy sends all of r in pieces, as there is room, and an empty piece for its end.
func (w *Window) Copy(ctx context.Context, r io.Reader, send func([]byte) error) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		for part := buf[:n]; len(part) > 0; {
			room, rerr := w.room(ctx, len(part))
			if rerr != nil {
				return rerr
			}
			if err := send(part[:room]); err != nil {
				return err
			}
			part = part[room:]
		}
		if err == io.EOF {
			return send(nil)
		}
		if err != nil {
			return err
		}
	}
}

func (w *Window) room(ctx context.Context, want int) (int, error) {
	for {
		w.mu.Lock()
		n, freed := min(want, w.left), w.freed
		w.left -= n
		w.mu.Unlock()
		if n > 0 {
			return n, nil
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// Inbox is the receiver's side: an io.Reader of what was put into it.
type Inbox struct {
	took func(credit []byte)

	mu   sync.Mutex
	cond *sync.Cond
	buf  []byte
	end  error // after what is in buf
}

// NewInbox is an empty one. took sends a credit to the other side.
func NewInbox(took func(credit []byte)) *Inbox {
	i := &Inbox{took: took}
	i.cond = sync.NewCond(&i.mu)
	return i
}

// Put adds what has arrived, or with nothing ends the input. It does not wait, and
// fails if the sender does not keep to its window.
func (i *Inbox) Put(p []byte) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.buf)+len(p) > WindowSize {
		return errors.New("more was sent than there is room for")
	}
	if i.end == nil {
		i.buf = append(i.buf, p...)
		if len(p) == 0 {
			i.end = io.EOF
		}
	}
	i.cond.Broadcast()
	return nil
}

// Close ends reads, also one that waits.
func (i *Inbox) Close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.buf, i.end = nil, io.ErrClosedPipe
	i.cond.Broadcast()
}

func (i *Inbox) Read(p []byte) (int, error) {
	i.mu.Lock()
	for len(i.buf) == 0 && i.end == nil {
		i.cond.Wait()
	}
	n := copy(p, i.buf)
	i.buf = i.buf[:copy(i.buf, i.buf[n:])]
	err := i.end
	i.mu.Unlock()
	if n == 0 {
		return 0, err
	}
	i.took(binary.BigEndian.AppendUint32(nil, uint32(n)))
	return n, nil
}
