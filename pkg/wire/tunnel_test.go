package wire

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"peercompute/pkg/mesh"
)

const tunnelVector = "01" + "6162636465666768696a6b6c6d6e3233" + "05" + "61622d3031"

func TestTunnelHeaderVector(t *testing.T) {
	want := TunnelHeader{Workload: "abcdefghijklmn23", Label: "ab-01"}
	got, err := want.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	if hex.EncodeToString(got) != tunnelVector {
		t.Errorf("encoded %x, want %s", got, tunnelVector)
	}
	r := bytes.NewReader(append(got, "GET / HTTP/1.1"...))
	back, err := ReadTunnelHeader(r)
	if err != nil || back != want {
		t.Errorf("read %+v, %v; want %+v", back, err, want)
	}
	if r.Len() != len("GET / HTTP/1.1") {
		t.Errorf("%d bytes are left, the header's reader took more than the header", r.Len())
	}
}

func TestTunnelHeaderRefuses(t *testing.T) {
	id := "abcdefghijklmn23"
	for name, tc := range map[string]struct {
		in   string
		kind mesh.Kind
	}{
		"empty":            {"", mesh.Invalid},
		"version 0":        {"\x00" + id + "\x01a", mesh.Unsupported},
		"version 2":        {"\x02" + id + "\x01a", mesh.Unsupported},
		"cut in the ID":    {"\x01abc", mesh.Invalid},
		"upper-case ID":    {"\x01ABCDEFGHIJKLMN23\x01a", mesh.Invalid},
		"NUL in the ID":    {"\x01abcdefghijklmn2\x00\x01a", mesh.Invalid},
		"no label":         {"\x01" + id + "\x00", mesh.Invalid},
		"cut in the label": {"\x01" + id + "\x05ab", mesh.Invalid},
		"label too long":   {"\x01" + id + "\x40" + strings.Repeat("a", 64), mesh.Invalid},
		"dot in label":     {"\x01" + id + "\x03a.b", mesh.Invalid},
		"upper-case label": {"\x01" + id + "\x01A", mesh.Invalid},
		"newline in label": {"\x01" + id + "\x02a\n", mesh.Invalid},
	} {
		_, err := ReadTunnelHeader(strings.NewReader(tc.in))
		if err == nil || mesh.KindOf(err) != tc.kind {
			t.Errorf("%s: got %v, want kind %s", name, err, tc.kind)
		}
	}
	for _, h := range []TunnelHeader{
		{},
		{Workload: "abcdefghijklmn23"},
		{Label: "a"},
		{Workload: "abcdefghijklmn23", Label: strings.Repeat("a", 64)},
		{Workload: "abcdefghijklmn2", Label: "a"},
	} {
		if _, err := h.Append(nil); err == nil {
			t.Errorf("%+v was encoded", h)
		}
	}
}

func TestTunnelStatus(t *testing.T) {
	if err := TunnelAnswer(TunnelOpen); err != nil {
		t.Errorf("open: %v", err)
	}
	for _, k := range []mesh.Kind{mesh.Internal, mesh.NotFound, mesh.Denied, mesh.Overloaded} {
		err := TunnelAnswer(TunnelRefusal(k))
		if err == nil || mesh.KindOf(err) != k {
			t.Errorf("%s came back as %v", k, err)
		}
	}
	if err := TunnelAnswer(0); err == nil {
		t.Error("a zero status byte opens the tunnel")
	}
	if err := TunnelAnswer(0xff); err == nil {
		t.Error("an unknown status byte opens the tunnel")
	}
	if got := TunnelRefusal(0x80); got >= TunnelOpen {
		t.Errorf("kind 0x80 became status %#x, which does not refuse", got)
	}
}

func FuzzReadTunnelHeader(f *testing.F) {
	b, _ := hex.DecodeString(tunnelVector)
	f.Add(b)
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		h, err := ReadTunnelHeader(r)
		read := len(in) - r.Len()
		if read > MaxTunnelHeader {
			t.Fatalf("read %d bytes", read)
		}
		if err != nil {
			return
		}
		again, err := h.Append(nil)
		if err != nil || !bytes.Equal(again, in[:read]) {
			t.Fatalf("%+v encodes to %x (%v), was read from %x", h, again, err, in[:read])
		}
	})
}
