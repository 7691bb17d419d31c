package frame

import (
	"bytes"
	"io"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	var b bytes.Buffer
	w := Writer{W: &b, Type: 7}
	big := bytes.Repeat([]byte("x"), Max+10)
	if n, err := w.Write(big); n != len(big) || err != nil {
		t.Fatalf("Write = %d, %v", n, err)
	}
	var got []byte
	for {
		typ, p, err := Read(&b)
		if err == io.EOF {
			break
		}
		if err != nil || typ != 7 {
			t.Fatalf("Read: type %d, %v", typ, err)
		}
		got = append(got, p...)
	}
	if !bytes.Equal(got, big) {
		t.Fatalf("got %d bytes back, want %d", len(got), len(big))
	}
}

func TestReadRefuses(t *testing.T) {
	for name, in := range map[string][]byte{
		"oversized": {1, 0, 1, 0, 1},
		"cut":       {1, 0, 0, 0, 5, 'a'},
		"cut head":  {1, 0},
	} {
		if _, _, err := Read(bytes.NewReader(in)); err == nil || err == io.EOF {
			t.Errorf("%s: error = %v, want one that is not a clean end", name, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 1, 'a'})
	f.Fuzz(func(t *testing.T, in []byte) {
		typ, p, err := Read(bytes.NewReader(in))
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := Write(&b, typ, p); err != nil || !bytes.HasPrefix(in, b.Bytes()) {
			t.Fatalf("a frame that was read does not write back: %v", err)
		}
	})
}
