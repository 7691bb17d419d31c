package wire

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"peercompute/pkg/mesh"
)

func testHeartbeat(t testing.TB) (data []byte, h Heartbeat, from, to mesh.PeerID) {
	t.Helper()
	key, from := testKey(t, 1)
	_, to = testKey(t, 2)
	h = Heartbeat{
		Version: 1, From: from, To: to, Time: 1767225600000, Nonce: Nonce{1}, Incarnation: Incarnation{2}, Program: "v1",
		Trust: Head{Seq: 3, Hash: [32]byte{3}}, Audit: Head{Seq: 4, Hash: [32]byte{4}}, Free: &Capacity{Workloads: 5, MilliCPU: 6, Memory: 7, Disk: 8},
	}
	data, err := SealHeartbeat(key, h)
	if err != nil {
		t.Fatal(err)
	}
	return data, h, from, to
}

func TestHeartbeatIsBound(t *testing.T) {
	data, want, from, to := testHeartbeat(t)
	_, other := testKey(t, 3)
	got, err := OpenHeartbeat(data, from, to)
	if err != nil || !reflect.DeepEqual(*got, want) {
		t.Fatalf("opened as %+v, %v; want %+v", got, err, want)
	}
	for name, c := range map[string]struct {
		from, to mesh.PeerID
		rule     string
	}{
		"another node's": {other, to, "heartbeat.signer"},
		"misdirected":    {from, other, "heartbeat.to"},
		"to its sender":  {from, from, "heartbeat.to"},
	} {
		if _, err := OpenHeartbeat(data, c.from, c.to); err == nil || mesh.AsError(err).Rule != c.rule {
			t.Errorf("%s: %v, want it refused by %s", name, err, c.rule)
		}
	}
	// What a third node signs in another's name.
	key3, _ := testKey(t, 3)
	forged, err := SealHeartbeat(key3, want)
	if err != nil {
		t.Fatal(err)
	}
	for _, conn := range []mesh.PeerID{from, other} {
		if _, err := OpenHeartbeat(forged, conn, to); mesh.KindOf(err) != mesh.Forged {
			t.Errorf("signed by a third node, sent by %s: %v", conn, err)
		}
	}
	if _, err := OpenRequest(data); err == nil {
		t.Error("a heartbeat opens as a request")
	}
	if _, err := OpenPulse(data, from, to, data); err == nil {
		t.Error("a heartbeat opens as its own answer")
	}
	if _, err := OpenOwnHeartbeat(data, func(p mesh.PeerID) bool { return p == other }); err == nil {
		t.Error("another node's heartbeat passes as one's own")
	}
}

// alter changes one field of a struct by reflection, however it is made up.
func alter(t *testing.T, v reflect.Value, path string) {
	t.Helper()
	switch v.Kind() {
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Uint, reflect.Uint64:
		v.SetUint(v.Uint() + 1)
	case reflect.Uint8:
		v.SetUint((v.Uint() + 1) & 0xff)
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Array:
		alter(t, v.Index(0), path)
	case reflect.Slice:
		v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		} else {
			v.SetZero()
		}
	default:
		t.Fatalf("%s has a kind this test does not know: %s", path, v.Kind())
	}
}

// leaves calls f for each field, those of nested structs too.
func leaves(v reflect.Value, path string, f func(at []int, path string)) {
	var walk func(v reflect.Value, at []int, path string)
	walk = func(v reflect.Value, at []int, path string) {
		for i := range v.NumField() {
			here := append(append([]int(nil), at...), i)
			name := path + "." + v.Type().Field(i).Name
			if v.Field(i).Kind() == reflect.Struct {
				walk(v.Field(i), here, name)
				continue
			}
			f(here, name)
		}
	}
	walk(v, nil, path)
}

// resign puts another payload under an envelope's old signature.
func resign(t *testing.T, sealed, old, payload []byte) []byte {
	t.Helper()
	i := bytes.Index(sealed, old)
	if i < 0 {
		t.Fatal("the envelope does not hold its payload")
	}
	head := sealed[:i]
	n := len(old)
	for n > 0 { // take off the varint of the old length
		head = head[:len(head)-1]
		n >>= 7
	}
	out := bytes.Clone(head)
	for n = len(payload); n >= 0x80; n >>= 7 {
		out = append(out, byte(n)|0x80)
	}
	out = append(out, byte(n))
	out = append(out, payload...)
	return append(out, sealed[i+len(old):]...)
}

func TestEveryFieldOfAHeartbeatIsSigned(t *testing.T) {
	data, want, from, to := testHeartbeat(t)
	payload, err := Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := OpenHeartbeat(resign(t, data, payload, payload), from, to); err != nil || again.Time != want.Time {
		t.Fatalf("the unchanged one: %v", err)
	}
	n := 0
	leaves(reflect.ValueOf(want), "Heartbeat", func(at []int, path string) {
		n++
		changed := want
		alter(t, reflect.ValueOf(&changed).Elem().FieldByIndex(at), path)
		other, err := Marshal(changed)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(other, payload) {
			t.Errorf("changing %s does not change the payload", path)
		}
		if _, err := OpenHeartbeat(resign(t, data, payload, other), from, to); mesh.KindOf(err) != mesh.Forged {
			t.Errorf("%s changed under the old signature: %v, want it refused as forged", path, err)
		}
	})
	if n < 12 {
		t.Fatalf("only %d fields", n)
	}
	for i := range len(data) * 8 {
		bad := bytes.Clone(data)
		bad[i/8] ^= 1 << (i % 8)
		if _, err := OpenHeartbeat(bad, from, to); err == nil {
			t.Fatalf("bit %d flipped and accepted", i)
		}
	}
}

func TestPulseIsBound(t *testing.T) {
	data, _, from, to := testHeartbeat(t)
	key, _ := testKey(t, 2)
	good := NewPulse(data, to, from, time.UnixMilli(5))
	open := func(p Pulse, beat []byte) error {
		out, err := SealPulse(key, p)
		if err != nil {
			t.Fatal(err)
		}
		_, err = OpenPulse(out, to, from, beat)
		return err
	}
	if err := open(good, data); err != nil {
		t.Fatal(err)
	}
	if open(good, append(bytes.Clone(data), 0)) == nil {
		t.Error("an answer to another heartbeat is accepted")
	}
	for name, spoil := range map[string]func(*Pulse){
		"another sender":   func(p *Pulse) { p.From = from },
		"another receiver": func(p *Pulse) { p.To = to },
		"another version":  func(p *Pulse) { p.Version++ },
		"another beat":     func(p *Pulse) { p.Beat[0]++ },
	} {
		p := good
		spoil(&p)
		if open(p, data) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	out, err := SealPulse(key, good)
	if err != nil {
		t.Fatal(err)
	}
	_, third := testKey(t, 3)
	if _, err := OpenPulse(out, third, from, data); err == nil {
		t.Error("another node's answer is accepted")
	}
	if _, err := OpenHeartbeat(out, to, from); err == nil {
		t.Error("an answer opens as a heartbeat")
	}
}

// What opens encodes again, and only one encoding opens.
func FuzzOpenHeartbeat(f *testing.F) {
	data, _, from, to := testHeartbeat(f)
	f.Add(data)
	f.Add(data[:len(data)-1])
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := OpenHeartbeat(data, from, to)
		if err != nil {
			return
		}
		if h.From != from || h.To != to {
			t.Fatal("opened for others")
		}
		if _, err := Marshal(h); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzOpenPulse(f *testing.F) {
	beat, _, from, to := testHeartbeat(f)
	key, _ := testKey(f, 2)
	p := NewPulse(beat, to, from, time.UnixMilli(5))
	p.Earlier = beat
	data, err := SealPulse(key, p)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := OpenPulse(data, to, from, beat)
		if err == nil && (p.From != to || p.To != from) {
			t.Fatal("opened for others")
		}
	})
}
