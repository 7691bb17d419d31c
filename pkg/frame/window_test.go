package frame

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"
)

func TestWindow(t *testing.T) {
	want := bytes.Repeat([]byte("0123456789"), 100_000)
	w := NewWindow()
	in := NewInbox(func(credit []byte) {
		if err := w.Took(credit); err != nil {
			t.Error(err)
		}
	})
	sent := make(chan error, 1)
	go func() { sent <- w.Copy(t.Context(), bytes.NewReader(want), in.Put) }()
	got, err := io.ReadAll(in)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// A receiver that takes nothing holds up the sender, and neither holds more than the
// window. Who does not keep to it is found out.
func TestWindowIsKept(t *testing.T) {
	w, in := NewWindow(), NewInbox(func([]byte) {})
	ctx, cancel := context.WithCancel(t.Context())
	sent := 0
	full := make(chan error, 1)
	go func() {
		full <- w.Copy(ctx, bytes.NewReader(make([]byte, 2*WindowSize)), func(p []byte) error {
			sent += len(p)
			if sent == WindowSize {
				time.AfterFunc(0, cancel)
			}
			return in.Put(p)
		})
	}()
	if err := <-full; !errors.Is(err, context.Canceled) || sent != WindowSize {
		t.Errorf("sent %d bytes, %v", sent, err)
	}
	if in.Put([]byte("x")) == nil {
		t.Error("more than the window was taken")
	}
	if w.Took([]byte{0xff, 0xff, 0xff, 0xff}) == nil || NewWindow().Took([]byte{0, 0, 0, 1}) == nil || w.Took(nil) == nil {
		t.Error("a credit for what was never sent counts")
	}
	in.Close()
	if _, err := in.Read(make([]byte, 1)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("read of a closed inbox: %v", err)
	}
}
