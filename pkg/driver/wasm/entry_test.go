package wasm

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

func readEntries(t *testing.T, text string, o driver.LogOptions) (out []mesh.LogEntry) {
	t.Helper()
	r := newLogReader(io.NopCloser(strings.NewReader(text)), o)
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		e.Text = bytes.Clone(e.Text)
		out = append(out, e)
	}
}

// TestEntries writes what a worker sends, in pieces of every size, and reads it back.
func TestEntries(t *testing.T) {
	at := time.Date(2026, 11, 26, 1, 2, 3, 4000, time.UTC)
	sent := "oone\netwo\n\noe three\nplain\n" + "o" + strings.Repeat("x", 2*maxLine) + "\neno end"
	for size := 1; size < 40; size++ {
		var file bytes.Buffer
		s := &stamper{to: &file, now: func() time.Time { return at }}
		for left := sent; left != ""; {
			n := min(size, len(left))
			if _, err := s.Write([]byte(left[:n])); err != nil {
				t.Fatal(err)
			}
			left = left[n:]
		}
		if err := s.flush(); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range readEntries(t, file.String(), driver.LogOptions{}) {
			if !e.Time.Equal(at) {
				t.Fatalf("at %s", e.Time)
			}
			got = append(got, string(e.Stream)+":"+string(e.Text))
		}
		want := []string{"stdout:one\n", "stderr:two\n", "stdout:\n", "stdout:e three\n", "stdout:plain\n"}
		if len(got) < len(want)+2 || strings.Join(got[:len(want)], "") != strings.Join(want, "") || got[len(got)-1] != "stderr:no end\n" {
			t.Fatalf("pieces of %d: got %.300q", size, got)
		}
		long := strings.Join(got[len(want):len(got)-1], "")
		if strings.Count(long, "x") != 2*maxLine {
			t.Errorf("pieces of %d: %d bytes of a long line are left", size, strings.Count(long, "x"))
		}
	}
}

func TestEntriesAreSelected(t *testing.T) {
	var file []byte
	for i, mark := range []byte{markStdout, markStderr, markStdout, markStderr} {
		file = stamped(file, time.Unix(int64(100+i), 0), mark, []byte{byte('a' + i)})
	}
	file = append([]byte("of another version\n"), file...)
	for _, c := range []struct {
		o    driver.LogOptions
		want string
	}{
		{driver.LogOptions{}, "of another version\na\nb\nc\nd\n"},
		{driver.LogOptions{Stream: mesh.Stderr}, "b\nd\n"},
		{driver.LogOptions{Since: time.Unix(102, 0)}, "c\nd\n"},
		{driver.LogOptions{Since: time.Unix(101, 1), Stream: mesh.Stdout}, "c\n"},
	} {
		got := ""
		for _, e := range readEntries(t, string(file), c.o) {
			got += string(e.Text)
		}
		if got != c.want {
			t.Errorf("%+v: got %q, want %q", c.o, got, c.want)
		}
	}
}

func FuzzEntries(f *testing.F) {
	f.Add([]byte("oone\netwo\nplain"))
	f.Add([]byte("2026-11-26T01:02:03.000004000Z o text\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var file bytes.Buffer
		s := &stamper{to: &file, now: func() time.Time { return time.Unix(1, 0) }}
		_, _ = s.Write(in)
		_ = s.flush()
		for _, text := range []string{file.String(), string(in)} {
			for _, e := range readEntries(t, text, driver.LogOptions{}) {
				if !e.Stream.Valid() || e.Stream == "" || len(e.Text) > maxStored {
					t.Errorf("an entry of %q with %d bytes", e.Stream, len(e.Text))
				}
			}
		}
		// Whatever a worker sends, what it says of time is peerd's.
		for _, e := range readEntries(t, file.String(), driver.LogOptions{}) {
			if !e.Time.Equal(time.Unix(1, 0)) {
				t.Errorf("a line says it is of %s", e.Time)
			}
		}
	})
}
