package wire

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/mesh"
)

// checkVectors holds open to what the file's vectors say of it; of each that is good
// it hands what was opened to good.
func checkVectors[T any](t *testing.T, file string, least int, open func([]byte) (T, error), good func(name string, data []byte, got T)) {
	t.Helper()
	vectors := vectorsOf(t, file)
	if len(vectors) < least {
		t.Fatalf("only %d vectors in %s", len(vectors), file)
	}
	for _, v := range vectors {
		got, err := open(v.data)
		if v.want == "ok" {
			if err != nil {
				t.Errorf("%s: %v", v.name, err)
				continue
			}
			good(v.name, v.data, got)
			continue
		}
		kind, rule, _ := strings.Cut(v.want, " ")
		if e := mesh.AsError(err); e == nil || e.Kind.String() != kind || e.Rule != rule {
			t.Errorf("%s: got %v, want %s by rule %s", v.name, err, kind, rule)
		}
	}
}

func bytes32(b byte) [32]byte { return [32]byte(bytes.Repeat([]byte{b}, 32)) }

func TestHeartbeatVectors(t *testing.T) {
	keyA, idA := testKey(t, 1)
	_, idB := testKey(t, 2)
	open := func(data []byte) (*Heartbeat, error) { return OpenHeartbeat(data, idA, idB) }
	checkVectors(t, "testdata/heartbeats.txt", 25, open, func(name string, data []byte, got *Heartbeat) {
		want := Heartbeat{
			Version: 1, From: idA, To: idB, Time: 1767225600000, Nonce: Nonce(bytes.Repeat([]byte{0x66}, 16)), Incarnation: Incarnation(bytes.Repeat([]byte{0x55}, 16)),
			Program: "v1.2.3", Trust: Head{3, bytes32(0x33)}, Audit: Head{4, bytes32(0x44)},
			Free: &Capacity{Workloads: 5, MilliCPU: 6000, Memory: 7 << 30, Disk: 8 << 30},
		}
		if !reflect.DeepEqual(*got, want) {
			t.Errorf("%s: opened as\n%+v, want\n%+v", name, *got, want)
		}
		if again, err := SealHeartbeat(keyA, want); err != nil || !bytes.Equal(again, data) {
			t.Errorf("%s: sealing the same gives other bytes (%v):\n%x\n%x", name, err, again, data)
		}
	})
}

func TestPulseVectors(t *testing.T) {
	_, idA := testKey(t, 1)
	keyB, idB := testKey(t, 2)
	beat := vectorsOf(t, "testdata/heartbeats.txt")[0].data
	open := func(data []byte) (*Pulse, error) { return OpenPulse(data, idB, idA, beat) }
	checkVectors(t, "testdata/pulses.txt", 15, open, func(name string, data []byte, got *Pulse) {
		want := NewPulse(beat, idB, idA, time.UnixMilli(1767225600007))
		if strings.Contains(name, "earlier") {
			want.Earlier, want.Doubled = []byte{1, 2, 3, 4}, true
		}
		if !reflect.DeepEqual(*got, want) {
			t.Errorf("%s: opened as\n%+v, want\n%+v", name, *got, want)
		}
		if again, err := SealPulse(keyB, want); err != nil || !bytes.Equal(again, data) {
			t.Errorf("%s: sealing the same gives other bytes (%v):\n%x\n%x", name, err, again, data)
		}
	})
}

func TestRotationVectors(t *testing.T) {
	keyA, idA := testKey(t, 1)
	keyB, idB := testKey(t, 2)
	keyC, idC := testKey(t, 3)
	open := func(data []byte) ([]Rotation, error) {
		var l Lineage
		if err := Unmarshal(data, &l, MaxLineage); err != nil {
			return nil, err
		}
		return l.Open()
	}
	checkVectors(t, "testdata/rotations.txt", 20, open, func(name string, data []byte, got []Rotation) {
		want := []Rotation{{Version: 1, Old: idA, New: idB, Seq: 1, Time: 1767225600000, Overlap: 3_600_000}}
		switch name {
		case "a day":
			want[0].Overlap = 86_400_000
		case "two steps":
			want = append(want, Rotation{Version: 1, Old: idB, New: idC, Seq: 2, Time: 1767225600001, Compromised: true})
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: opened as\n%+v, want\n%+v", name, got, want)
		}
		var l Lineage
		for _, r := range want {
			oldKey, newKey := keyA, keyB
			if r.Old == idB {
				oldKey, newKey = keyB, keyC
			}
			s, err := SealRotation(oldKey, newKey, r)
			if err != nil {
				t.Fatal(err)
			}
			l.Steps = append(l.Steps, s)
		}
		if again, err := Marshal(l); err != nil || !bytes.Equal(again, data) {
			t.Errorf("%s: sealing the same gives other bytes (%v):\n%x\n%x", name, err, again, data)
		}
	})
}
