package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

var began = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func open(t testing.TB) (*Log, *store.Store) {
	t.Helper()
	st, err := store.Open(filepath.Join(t.TempDir(), store.FileName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return New(Config{Store: st, Now: func() time.Time { return began }}), st
}

// write appends n entries in one transaction.
func write(t testing.TB, st *store.Store, n int) {
	t.Helper()
	err := st.Update(context.Background(), func(tx *store.Tx) error {
		for i := range n {
			e := Entry{Time: began.Add(time.Duration(i) * time.Second), Actor: Local, Action: "deploy", Subject: fmt.Sprint(i), Outcome: Done, Detail: "hello <&> \xff"}
			if err := Append(tx, e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func head(t testing.TB, l *Log) Head {
	t.Helper()
	h, err := l.Head()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func standing(t testing.TB, l *Log, h Head) Standing {
	t.Helper()
	s, err := l.Standing(h)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func edit(t testing.TB, st *store.Store, f func(*store.Tx) error) {
	t.Helper()
	if err := st.Update(context.Background(), f); err != nil {
		t.Fatal(err)
	}
}

// A refused effect leaves no entry: both are one transaction.
func TestEntryIsPartOfItsTransaction(t *testing.T) {
	l, st := open(t)
	err := st.Update(context.Background(), func(tx *store.Tx) error {
		if err := Append(tx, Entry{Time: began, Actor: Local, Action: "deploy", Outcome: Done}); err != nil {
			return err
		}
		return mesh.Errorf(mesh.Quota, "no")
	})
	if err == nil || head(t, l) != (Head{}) {
		t.Fatalf("after %v the head is %+v", err, head(t, l))
	}
	write(t, st, 3)
	if r, err := l.Verify(); err != nil || r.Entries != 3 || r.First != 1 || r.Head != head(t, l) || r.Head.Seq != 3 {
		t.Fatalf("verified %+v, %v", r, err)
	}
}

// Any edit, cut, swap or insertion is found, and the first broken entry named.
func TestVerifyFindsEdits(t *testing.T) {
	raw := func(tx *store.Tx, seq uint64) []byte { return bytes.Clone(tx.Get(store.Audit, key(seq))) }
	for name, c := range map[string]struct {
		edit func(*store.Tx) error
		at   int
	}{
		"text": {func(tx *store.Tx) error {
			return tx.Put(store.Audit, key(4), bytes.Replace(raw(tx, 4), []byte("hello"), []byte("hullo"), 1))
		}, 4},
		"text and its hash": {func(tx *store.Tx) error {
			data := bytes.Replace(raw(tx, 4)[32:], []byte("hello"), []byte("hullo"), 1)
			h := hashOf(data)
			return tx.Put(store.Audit, key(4), append(h[:], data...))
		}, 5},
		"hash":       {func(tx *store.Tx) error { b := raw(tx, 4); b[0]++; return tx.Put(store.Audit, key(4), b) }, 4},
		"one gone":   {func(tx *store.Tx) error { return tx.Delete(store.Audit, key(4)) }, 4},
		"first gone": {func(tx *store.Tx) error { return tx.Delete(store.Audit, key(1)) }, 2},
		"last gone":  {func(tx *store.Tx) error { return tx.Delete(store.Audit, key(9)) }, 9},
		"emptied":    {func(tx *store.Tx) error { return tx.Put(store.Audit, key(4), nil) }, 4},
		"swapped": {func(tx *store.Tx) error {
			a, b := raw(tx, 4), raw(tx, 5)
			return errorsOf(tx.Put(store.Audit, key(4), b), tx.Put(store.Audit, key(5), a))
		}, 4},
		"one added": {func(tx *store.Tx) error { return tx.Put(store.Audit, key(10), raw(tx, 9)) }, 10},
		"another's key": {func(tx *store.Tx) error {
			b := raw(tx, 9)
			return errorsOf(tx.Delete(store.Audit, key(9)), tx.Put(store.Audit, key(12), b))
		}, 9},
		"unknown field": {func(tx *store.Tx) error {
			return tx.Put(store.Audit, key(4), bytes.Replace(raw(tx, 4), []byte(`"detail"`), []byte(`"detale"`), 1))
		}, 4},
		"head rolled back": {func(tx *store.Tx) error {
			b := raw(tx, 8)
			return tx.Put(store.Meta, keyHead, append(key(8), b[:32]...))
		}, 10},
	} {
		l, st := open(t)
		write(t, st, 9)
		edit(t, st, c.edit)
		_, err := l.Verify()
		if want := fmt.Sprintf("broken at entry %d:", c.at); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// A full log drops its oldest entries, says so in the chain, and verifies; the
// same cut by somebody else does not.
func TestCut(t *testing.T) {
	l, st := open(t)
	write(t, st, 10)
	early := head(t, l)
	for range MaxEntries / 4096 {
		write(t, st, 4096)
	}
	r, err := l.Verify()
	if err != nil || r.First != cutAtOnce+1 || r.Entries > MaxEntries || r.Entries < keptAtLeast {
		t.Fatalf("a full log verifies as %+v, %v", r, err)
	}
	if standing(t, l, early) != Dropped {
		t.Error("a head that was dropped is not said to be")
	}
	write(t, st, 2*cutAtOnce)
	if r, err = l.Verify(); err != nil || r.First < 2*cutAtOnce || r.Entries > MaxEntries {
		t.Fatalf("after more cuts: %+v, %v", r, err)
	}
	recent := head(t, l)
	// Somebody drops a few more at the front.
	edit(t, st, func(tx *store.Tx) error { return tx.Delete(store.Audit, key(r.First)) })
	if _, err := l.Verify(); err == nil || !strings.Contains(err.Error(), "no cut tells of it") {
		t.Errorf("a cut that is not ours: %v", err)
	}
	// Somebody drops nearly all, with an entry that claims that it was ours.
	edit(t, st, func(tx *store.Tx) error {
		last := recent.Seq - 10
		v := tx.Get(store.Audit, key(last))
		_, err := put(tx, recent, Entry{Time: began, Actor: Node, Action: actionCut, Outcome: Done, Subject: fmt.Sprint(last), Detail: Hash(v[:32]).String()})
		for seq := r.First; err == nil && seq <= last; seq++ {
			err = tx.Delete(store.Audit, key(seq))
		}
		return err
	})
	if _, err := l.Verify(); err == nil || !strings.Contains(err.Error(), "had no need for") {
		t.Errorf("a cut that the log had no need for: %v", err)
	}
	if standing(t, l, Head{recent.Seq - 20, recent.Hash}) != Foreign {
		t.Error("a recent head that is gone is not an alarm")
	}
}

// A head that somebody kept tells whether the log was rewritten or rolled back.
func TestStanding(t *testing.T) {
	l, st := open(t)
	write(t, st, 5)
	kept := head(t, l)
	write(t, st, 5)
	newest := head(t, l)
	for name, c := range map[string]struct {
		h    Head
		want Standing
	}{
		"none":           {Head{}, Held},
		"older":          {kept, Held},
		"newest":         {newest, Held},
		"of the future":  {Head{newest.Seq + 1, newest.Hash}, Foreign},
		"another's":      {Head{kept.Seq, newest.Hash}, Foreign},
		"without number": {Head{0, newest.Hash}, Foreign},
	} {
		if got := standing(t, l, c.h); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	var was []byte
	edit(t, st, func(tx *store.Tx) error { was = bytes.Clone(tx.Get(store.Audit, key(5))); return nil })
	// The whole log is written anew, consistent in itself, from entry 5 on.
	edit(t, st, func(tx *store.Tx) error {
		for seq := uint64(5); seq <= 10; seq++ {
			if err := tx.Delete(store.Audit, key(seq)); err != nil {
				return err
			}
		}
		before := Head{4, Hash(tx.Get(store.Audit, key(4))[:32])}
		for range 6 {
			var err error
			if before, err = put(tx, before, Entry{Time: began, Actor: Local, Action: "nothing", Outcome: Done}); err != nil {
				return err
			}
		}
		return nil
	})
	if _, err := l.Verify(); err != nil {
		t.Fatalf("the forger made a mistake: %v", err)
	}
	if standing(t, l, kept) != Foreign || standing(t, l, newest) != Foreign || len(was) == 0 {
		t.Error("a rewritten log passes for the one it was")
	}
}

func TestCountsInsteadOfLines(t *testing.T) {
	l, st := open(t)
	now := began
	l.cfg.Now = func() time.Time { return now }
	refused := func(actor, rule string) Entry {
		return Entry{Actor: actor, Action: "deploy", Rule: rule, Outcome: Refused, Detail: "memory"}
	}
	for range 413 {
		l.Note(refused("alice", "grant.memory"))
	}
	l.Note(refused("alice", "grant.cpus"))
	l.Note(refused("bob", "grant.memory"))
	over := func(t *tally) bool { return now.Sub(t.since) >= t.window() }
	flush := func() {
		t.Helper()
		if err := l.flush(context.Background(), over); err != nil {
			t.Fatal(err)
		}
	}
	flush()
	if got := lines(t, st); len(got) != 3 || got[0].Count != 0 {
		t.Fatalf("413 refusals are written as %+v", got)
	}
	now = now.Add(refusalWindow)
	flush()
	got := lines(t, st)
	if len(got) != 4 || got[3].Count != 412 || got[3].Actor != "alice" || got[3].Rule != "grant.memory" || !got[3].Time.Equal(began) {
		t.Fatalf("after the window: %+v", got)
	}
	now = now.Add(refusalWindow)
	flush()
	l.Note(refused("alice", "grant.memory"))
	flush()
	if got := lines(t, st); len(got) != 5 || got[4].Count != 0 {
		t.Fatalf("a later refusal is written as %+v", got)
	}
	if _, err := l.Verify(); err != nil {
		t.Error(err)
	}
}

// However many strangers come, what is remembered of them is bounded.
func TestTalliesAreBounded(t *testing.T) {
	l, st := open(t)
	for i := range 5 * maxTallies {
		l.Note(Entry{Actor: fmt.Sprint("p", i), Action: "join", Rule: "join.secret", Outcome: Refused})
	}
	if len(l.tallies) > maxTallies+2 || len(l.due) > maxDue {
		t.Fatalf("%d tallies and %d entries wait", len(l.tallies), len(l.due))
	}
	if err := l.flush(context.Background(), func(*tally) bool { return true }); err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, e := range lines(t, st) {
		total += max(1, e.Count)
	}
	if total != 5*maxTallies {
		t.Errorf("%d refusals are on record, want %d", total, 5*maxTallies)
	}
}

// What Run still holds when it ends is written.
func TestRunWritesTheRest(t *testing.T) {
	l, st := open(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	for range 3 {
		l.Note(Entry{Actor: "alice", Action: "deploy", Rule: "trust", Outcome: Refused})
	}
	go func() { done <- l.Run(ctx) }()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := lines(t, st); len(got) != 2 || got[1].Count != 2 {
		t.Fatalf("on record: %+v", got)
	}
}

func lines(t testing.TB, st *store.Store) (out []Entry) {
	t.Helper()
	err := st.View(func(tx *store.Tx) error {
		return tx.Each(store.Audit, nil, func(_, v []byte) (bool, error) {
			e, err := decode(v[32:])
			out = append(out, e)
			return true, err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// export is the log as peerctl audit export prints it.
func export(t testing.TB, st *store.Store) []byte {
	t.Helper()
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	for _, e := range lines(t, st) {
		_, h, err := e.encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := enc.Encode(Line{e, h}); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

func TestExportVerifies(t *testing.T) {
	l, st := open(t)
	write(t, st, 20)
	data := export(t, st)
	r, err := VerifyExport(bytes.NewReader(data))
	if err != nil || r.Head != head(t, l) || r.Entries != 20 {
		t.Fatalf("%+v, %v", r, err)
	}
	all := bytes.SplitAfter(data, []byte("\n"))
	rapid.Check(t, func(t *rapid.T) {
		i := rapid.IntRange(0, 19).Draw(t, "line")
		bad := bytes.Clone(data)
		switch rapid.IntRange(0, 2).Draw(t, "how") {
		case 0: // a digit or letter inside a value
			bad = bytes.Replace(bad, fmt.Appendf(nil, `"subject":"%d"`, i), fmt.Appendf(nil, `"subject":"%d"`, i+1), 1)
		case 1:
			if i == 19 {
				t.Skip("only the head tells that the end is gone")
			}
			bad = bytes.Replace(bad, all[i], nil, 1)
		case 2:
			bad = bytes.Replace(bad, all[i], append(bytes.Clone(all[i]), all[i]...), 1)
		}
		if _, err := VerifyExport(bytes.NewReader(bad)); err == nil {
			t.Fatalf("an edit of line %d is not found", i)
		}
	})
}

// FuzzVerifyExport: whatever is in the file, the answer comes and is no crash; a
// file that verifies says the same when it is written anew.
func FuzzVerifyExport(f *testing.F) {
	_, st := open(f)
	write(f, st, 3)
	data := export(f, st)
	f.Add(data)
	f.Add(data[len(data)/2:])
	f.Add([]byte("{}\n"))
	f.Add([]byte(`{"seq":1,"prev":"00","hash":""}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := VerifyExport(bytes.NewReader(data))
		if err == nil && (r.Entries == 0) != (r.Head == Head{}) {
			t.Errorf("%d entries with the head %+v", r.Entries, r.Head)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	_, st := open(b)
	err := st.Update(context.Background(), func(tx *store.Tx) error {
		b.ReportAllocs()
		for b.Loop() {
			if err := Append(tx, Entry{Time: began, Actor: Local, Action: "deploy", Subject: "aaaaaaaaaaaaaaaa", Outcome: Done, Detail: "hello, nginx:1.27, 100 MiB memory"}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

// That an entry was dropped explains the lack of one from long ago, and not of one
// that was the head moments ago.
func TestDroppedMomentsAgoIsNoAnswer(t *testing.T) {
	l, st := open(t)
	write(t, st, 1)
	old, err := l.Head()
	if err != nil {
		t.Fatal(err)
	}
	write(t, st, MaxEntries)
	if s, err := l.Standing(old); err != nil || s != Dropped {
		t.Fatalf("the first entry is %v, %v; this test shows nothing", s, err)
	}
	for ago, want := range map[time.Duration]bool{0: false, soonestDrop - 1: false, soonestDrop: true, 24 * time.Hour: true} {
		if ok, err := l.Contains(old, began.Add(-ago)); err != nil || ok != want {
			t.Errorf("heard %s ago: contained %t, %v", ago, ok, err)
		}
	}
	now, err := l.Head()
	if err != nil {
		t.Fatal(err)
	}
	now.Hash[0]++
	if ok, err := l.Contains(now, began.Add(-24*time.Hour)); err != nil || ok {
		t.Errorf("a head that never was: contained %t, %v", ok, err)
	}
}
