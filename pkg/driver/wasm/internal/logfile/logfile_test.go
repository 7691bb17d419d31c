package logfile

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openLog(t *testing.T, size int64) (*Log, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.log")
	l, err := Open(path, size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, path
}

func lines(from, to int) string {
	var b strings.Builder
	for i := from; i <= to; i++ {
		fmt.Fprintf(&b, "line %03d\n", i)
	}
	return b.String()
}

func read(t *testing.T, path string, tail int, live *Log) string {
	t.Helper()
	r, err := Read(t.Context(), path, tail, live)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestLogStaysSmall(t *testing.T) {
	l, path := openLog(t, 900) // 100 lines of 9 bytes
	for i := 1; i <= 350; i++ {
		if n, err := io.WriteString(l, lines(i, i)); n != 9 || err != nil {
			t.Fatal(n, err)
		}
	}
	if got, want := read(t, path, 0, nil), lines(201, 350); got != want {
		t.Errorf("got %d bytes from %.9q, want %d from %.9q", len(got), got, len(want), want)
	}
	for _, p := range []string{path, path + ".1"} {
		if st, err := os.Stat(p); err != nil || st.Size() > 900 || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", p, st, err)
		}
	}
	if n, err := l.Write(bytes.Repeat([]byte("x"), 5000)); n != 5000 || err != nil {
		t.Errorf("a write over the size: %d, %v", n, err)
	}
	if got := read(t, path, 0, nil); len(got) > 1800 {
		t.Errorf("%d bytes are kept", len(got))
	}
}

func TestTail(t *testing.T) {
	l, path := openLog(t, 900)
	io.WriteString(l, lines(1, 100))
	io.WriteString(l, lines(101, 150))
	for n, want := range map[int]string{1: lines(150, 150), 50: lines(101, 150), 51: lines(100, 150), 120: lines(31, 150), 150: lines(1, 150), 999: lines(1, 150), 0: lines(1, 150)} {
		if got := read(t, path, n, nil); got != want {
			t.Errorf("tail %d: got %d bytes from %.9q, want %d from %.9q", n, len(got), got, len(want), want)
		}
	}
	io.WriteString(l, "no end")
	if got := read(t, path, 1, nil); got != "no end" {
		t.Errorf("got %q", got)
	}
	if got := read(t, path, 2, nil); got != lines(150, 150)+"no end" {
		t.Errorf("got %q", got)
	}
}

func TestLogGoesOn(t *testing.T) {
	l, path := openLog(t, 900)
	io.WriteString(l, lines(1, 2))
	l.Close()
	if _, err := l.Write([]byte("x")); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
	again, err := Open(path, 900)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	io.WriteString(again, lines(3, 3))
	if got := read(t, path, 0, nil); got != lines(1, 3) {
		t.Errorf("got %q", got)
	}
}

func TestFollow(t *testing.T) {
	l, path := openLog(t, 900)
	io.WriteString(l, lines(1, 10))
	r, err := Follow(t.Context(), path, 5, l)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	follow := bufio.NewReader(r)
	read := 6
	upTo := func(last int) {
		t.Helper()
		for ; read <= last; read++ {
			if line, err := follow.ReadString('\n'); err != nil || line != lines(read, read) {
				t.Fatalf("got %q, %v, want line %d", line, err, read)
			}
		}
	}
	for i := 11; i <= 250; i++ { // turned over twice, at the reader's pace
		io.WriteString(l, lines(i, i))
		if i%20 == 0 {
			upTo(i)
		}
	}
	l.Close()
	upTo(250)
	if rest, err := io.ReadAll(follow); len(rest) > 0 || err != nil {
		t.Errorf("after the end: %q, %v", rest, err)
	}
}

func TestFollowEndsWithItsContext(t *testing.T) {
	l, path := openLog(t, 900)
	io.WriteString(l, lines(1, 1))
	ctx, cancel := context.WithCancel(t.Context())
	r, err := Follow(ctx, path, 0, l)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	time.AfterFunc(20*time.Millisecond, cancel)
	if b, err := io.ReadAll(r); string(b) != lines(1, 1) || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestRemove(t *testing.T) {
	l, path := openLog(t, 9)
	io.WriteString(l, lines(1, 1))
	io.WriteString(l, lines(2, 2))
	l.Close()
	for range 2 {
		if err := Remove(path); err != nil {
			t.Error(err)
		}
	}
	if _, err := Read(t.Context(), path, 0, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("reading a removed log: %v", err)
	}
}
