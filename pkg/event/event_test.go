package event

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

var began = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func bus() *Bus { return New(func() time.Time { return began }) }

func subjects(es []Event) (out []string) {
	for _, e := range es {
		out = append(out, e.Subject)
	}
	return out
}

func TestLastOnes(t *testing.T) {
	b := bus()
	for i := range keep + 10 {
		b.Publish(Event{Type: Types()[i%2], Subject: fmt.Sprint(i)})
	}
	got, s := b.Subscribe(3)
	defer s.Close()
	if want := fmt.Sprint([]string{"1031", "1032", "1033"}); fmt.Sprint(subjects(got)) != want {
		t.Errorf("the last three are %v, want %s", subjects(got), want)
	}
	got, all := b.Subscribe(10*keep, Admission)
	defer all.Close()
	if len(got) != keep/2 || got[0].Subject != "11" || got[0].Type != Admission || !got[0].Time.Equal(began) {
		t.Errorf("%d of one type, from %+v", len(got), got[0])
	}
	b.Publish(Event{Type: Trust, Subject: "no"})
	b.Publish(Event{Type: Admission, Subject: "yes"})
	if e := <-all.C; e.Subject != "yes" || e.Seq != keep+12 || e.Missed != 0 {
		t.Errorf("then came %+v", e)
	}
}

// A reader that is too slow holds up nobody, and learns how many it lost.
func TestSlowReaderIsTold(t *testing.T) {
	b := bus()
	_, slow := b.Subscribe(0)
	defer slow.Close()
	_, quick := b.Subscribe(0)
	defer quick.Close()
	for i := range buffer + 40 {
		b.Publish(Event{Type: Trust, Subject: fmt.Sprint(i)})
		if e := <-quick.C; e.Missed != 0 || e.Subject != fmt.Sprint(i) {
			t.Fatalf("the quick one got %+v", e)
		}
	}
	for i := range buffer {
		if e := <-slow.C; e.Subject != fmt.Sprint(i) || e.Missed != 0 {
			t.Fatalf("event %d is %+v", i, e)
		}
	}
	b.Publish(Event{Type: Trust, Subject: "next"})
	if e := <-slow.C; e.Subject != "next" || e.Missed != 40 {
		t.Fatalf("after a gap of 40: %+v", e)
	}
	b.Publish(Event{Type: Trust, Subject: "after"})
	if e := <-slow.C; e.Missed != 0 {
		t.Fatalf("the gap is told twice: %+v", e)
	}
}

func TestClosedHearsNothing(t *testing.T) {
	b := bus()
	_, s := b.Subscribe(0)
	s.Close()
	b.Publish(Event{Type: Trust})
	if len(s.C) != 0 || len(b.subs) != 0 {
		t.Error("a closed subscription still gets events")
	}
	var none *Bus
	none.Publish(Event{Type: Trust}) // and does not crash
}

// Numbers have no gap for one who reads along, however many publish.
func TestManyAtOnce(t *testing.T) {
	b := bus()
	_, s := b.Subscribe(0)
	defer s.Close()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 500 {
				b.Publish(Event{Type: Workload})
			}
		})
	}
	var next uint64
	for next < 2000 {
		e := <-s.C
		if e.Seq != next+e.Missed+1 {
			t.Fatalf("event %d after %d, with %d missed", e.Seq, next, e.Missed)
		}
		next = e.Seq
		b.mu.Lock()
		done := b.seq == 2000 && len(s.C) == 0 // the last ones may have been lost
		b.mu.Unlock()
		if done {
			break
		}
	}
	wg.Wait()
}
