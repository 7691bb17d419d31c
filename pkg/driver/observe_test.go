package driver

import (
	"bytes"
	"errors"
	"testing"
)

func TestRecordGivesAgainWhatWasSeen(t *testing.T) {
	r := NewRecord(1000)
	seen := func(kind Observation, what string) {
		got, err := r.Observe(kind, func() []byte { return []byte(what) })
		if err != nil || string(got) != what {
			t.Fatalf("recording: got %q, %v", got, err)
		}
	}
	seen(ObservedClock, "noon")
	seen(ObservedNetwork, "")
	seen(ObservedClock, "one")
	log, complete := r.Bytes()
	if !complete {
		t.Fatal("cut off")
	}
	again, err := Replay(log)
	if err != nil {
		t.Fatal(err)
	}
	never := func() []byte { t.Error("the world was asked again"); return nil }
	// Kinds are apart: their order among each other may differ.
	for _, x := range []struct {
		kind Observation
		want string
	}{{ObservedNetwork, ""}, {ObservedClock, "noon"}, {ObservedClock, "one"}} {
		if got, err := again.Observe(x.kind, never); err != nil || string(got) != x.want {
			t.Errorf("got %q, %v, want %q", got, err, x.want)
		}
	}
	if _, err := again.Observe(ObservedClock, never); !errors.Is(err, ErrDiverged) {
		t.Errorf("a third time: %v, want ErrDiverged", err)
	}
}

func TestRecordIsBounded(t *testing.T) {
	r := NewRecord(100)
	for range 50 {
		if got, err := r.Observe(ObservedNetwork, func() []byte { return make([]byte, 20) }); err != nil || len(got) != 20 {
			t.Fatal("a full record must not change what the run sees")
		}
	}
	log, complete := r.Bytes()
	if complete || len(log) > 100 {
		t.Errorf("%d bytes, complete %v", len(log), complete)
	}
	if _, err := Replay(log); err != nil {
		t.Errorf("what was kept is damaged: %v", err)
	}
}

func TestNoRecordKeepsNothing(t *testing.T) {
	var r *Record
	if got, err := r.Observe(ObservedClock, func() []byte { return []byte("x") }); string(got) != "x" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func FuzzReplay(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4})
	f.Add([]byte{2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Add([]byte{4, 0})
	f.Fuzz(func(t *testing.T, log []byte) {
		r, err := Replay(log)
		if err != nil {
			return
		}
		total := 0
		for kind := range lastObservation + 1 {
			for {
				got, err := r.Observe(kind, nil)
				if err != nil {
					break
				}
				total += len(got) + 2
				if next, ok := r.Next(kind); ok && bytes.Contains(log, next) == false {
					t.Fatal("gives what is not in the log")
				}
			}
		}
		if total > len(log) {
			t.Fatalf("%d bytes out of %d", total, len(log))
		}
	})
}
