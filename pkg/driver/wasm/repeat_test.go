package wasm

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

// ran is all of a run that must be equal when it is repeated.
type ran struct {
	driver.Ran
	out, errs string
}

func (r *rig) job(w mesh.Workload, j driver.Job) ran {
	r.t.Helper()
	var out, errs bytes.Buffer
	j.Stdout, j.Stderr = &out, &errs
	if j.Stdin == nil {
		j.Stdin = strings.NewReader("")
	}
	got, err := r.Driver.Run(r.t.Context(), w, j)
	if err != nil {
		r.t.Fatal(err)
	}
	return ran{got, out.String(), errs.String()}
}

func (a ran) differs(b ran) bool {
	return a.Code != b.Code || a.Kind != b.Kind || a.Fuel != b.Fuel || a.PeakMemory != b.PeakMemory || a.out != b.out ||
		a.errs != b.errs || a.Input != b.Input || a.InputSize != b.InputSize
}

// A job is the same wherever and whenever it runs: what it sees follows from its
// module, its input and its seed.
func TestSameRunInTwoWorkers(t *testing.T) {
	r := newGoRig(t, Limits{})
	digest := r.shelf.probe()
	w := func(owner mesh.PeerID) mesh.Workload {
		w := r.workload(digest, mesh.Job, func(s *mesh.Spec) { s.Args = []string{"world:64"} })
		w.Owner = owner // and so a worker of its own
		return w
	}
	job := func(seed byte) driver.Job {
		return driver.Job{Stdin: strings.NewReader("the input\n"), Whole: true, Seed: driver.Seed{seed}}
	}
	first, second := r.job(w("alice"), job(1)), r.job(w("bob"), job(1))
	if first.Code != 0 || first.Fuel == 0 || !strings.HasSuffix(first.out, "\nthe input\n") {
		t.Fatalf("%+v", first)
	}
	if first.differs(second) {
		t.Errorf("got\n%+v\nand\n%+v", first, second)
	}
	if strings.Contains(first.out, "stood still") {
		t.Error(first.out)
	}
	if third := r.job(w("alice"), job(2)); first.out == third.out {
		t.Errorf("another seed gives the same: %s", third.out)
	}
}

// in runs a job in this process, on one engine or the other.
func in(t *testing.T, engine wazero.RuntimeConfig, module string, c guestCall, text string, change ...func(*instance)) ran {
	t.Helper()
	ctx := context.Background()
	ms, err := newModules(ctx, t.TempDir(), 64<<20, engine)
	if err != nil {
		t.Fatal(err)
	}
	defer ms.close(ctx)
	f, err := os.Open(module)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	code, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	m, err := ms.acquire(ctx, digestOf(code), f)
	if err != nil {
		t.Fatal(err)
	}
	defer ms.release(ctx, m)
	j := newJob(c, &budget{limit: 1 << 30})
	defer j.end()
	var out, errs bytes.Buffer
	var got ran
	var stdin *input
	got.Exit = j.run(m, func(mt *meter) instance {
		stdin = newInput(strings.NewReader(text), mt, true, driver.NewRecord(1000))
		in := instance{stdin: stdin, stdout: &out, stderr: &errs, seed: &c.Seed}
		for _, f := range change {
			f(&in)
		}
		return in
	})
	got.out, got.errs, got.Input, got.InputSize = out.String(), errs.String(), stdin.digest(), stdin.size
	return got
}

// A machine without a compiler for its processor interprets: same output, same
// fuel, same end.
func TestSameRunInterpreted(t *testing.T) {
	r := newGoRig(t, Limits{})
	probe := guests.build(t, "./testdata/probe")
	call := func(fuel uint64, args ...string) guestCall {
		return guestCall{
			Name: "guest", Args: args, Env: []string{"A=1"}, Memory: 64 << 20, MilliCPU: 1000, Fuel: fuel, Timeout: time.Minute, Seed: driver.Seed{7},
		}
	}
	for _, tc := range []struct {
		name   string
		module string
		call   guestCall
		kind   mesh.Kind
	}{
		{"a Go program", probe, call(1<<40, "world:64"), 0},
		{"a Go program that panics", probe, call(1<<40, "panic"), 0},
		{"out of fuel", r.shelf.file(spinModule("begun")), call(12_345_678), mesh.OutOfFuel},
		{"out of fuel in a Go program", probe, call(1_000_000, "spin"), mesh.OutOfFuel},
		{"out of memory", r.shelf.file(eatModule()), call(1 << 40), mesh.OutOfMemory},
		{"a trap", r.shelf.file(trapModule()), call(1 << 40), mesh.Trap},
		{"reading", r.shelf.file(echoModule("x")), call(1 << 40), 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := strings.Repeat("to be or not to be\n", 3000)
			compiled := in(t, wazero.NewRuntimeConfig(), tc.module, tc.call, text)
			interpreted := in(t, wazero.NewRuntimeConfigInterpreter(), tc.module, tc.call, text)
			if compiled.differs(interpreted) {
				t.Errorf("compiled\n%+v\ninterpreted\n%+v", compiled, interpreted)
			}
			if compiled.Kind != tc.kind {
				t.Errorf("got %+v, want kind %s", compiled, tc.kind)
			}
		})
	}
}

// The true time, where a job may read it, is recorded, and the same again when the
// run is repeated.
func TestTrueTimeIsRepeated(t *testing.T) {
	probe := guests.build(t, "./testdata/probe")
	call := guestCall{Name: "guest", Args: []string{"world:8"}, Memory: 64 << 20, MilliCPU: 1000, Fuel: 1 << 40, Timeout: time.Minute, Wall: true}
	job := func(r *driver.Record) ran {
		return in(t, wazero.NewRuntimeConfigInterpreter(), probe, call, "", func(i *instance) { i.record = r })
	}
	record := driver.NewRecord(1 << 20)
	first := job(record)
	log, complete := record.Bytes()
	if first.Code != 0 || first.Kind != 0 || len(log) == 0 || !complete || strings.Contains(first.out, "\n17672256") {
		t.Fatalf("%+v, recorded %d bytes", first, len(log))
	}
	again, err := driver.Replay(log)
	if err != nil {
		t.Fatal(err)
	}
	if second := job(again); first.differs(second) {
		t.Errorf("first\n%+v\nrepeated\n%+v", first, second)
	}
	if other := job(driver.NewRecord(1 << 20)); other.out == first.out {
		t.Error("another time gives the same: this test would not notice")
	}
	empty, err := driver.Replay(nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := job(empty); got.Kind != mesh.Conflict {
		t.Errorf("without its record: %+v", got.Ran)
	}
}

// pieces is an input that comes in parts.
type pieces struct {
	sizes []int
	text  string
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.text) == 0 {
		return 0, io.EOF
	}
	n := len(p.text)
	if len(p.sizes) > 0 {
		n, p.sizes = min(n, p.sizes[0]), p.sizes[1:]
	}
	n = copy(b, p.text[:n])
	p.text = p.text[n:]
	return n, nil
}

// How much each read of a streamed input gave is recorded, and the same again when
// the run is repeated: the fuel of a program depends on it.
func TestStreamedInputIsRepeated(t *testing.T) {
	const size = 100 << 10 // several of the module's reads
	text := strings.Repeat("0123456789abcdef", size/16)
	r := newRig(t, Limits{})
	path := r.shelf.file(echoModule(""))
	job := func(stdin io.Reader, record *driver.Record) ran {
		t.Helper()
		ctx := t.Context()
		ms, err := newModules(ctx, t.TempDir(), 64<<20, wazero.NewRuntimeConfigInterpreter())
		if err != nil {
			t.Fatal(err)
		}
		defer ms.close(ctx)
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		code, _ := os.ReadFile(path)
		m, err := ms.acquire(ctx, digestOf(code), f)
		if err != nil {
			t.Fatal(err)
		}
		j := newJob(guestCall{Memory: 1 << 20, Fuel: 1 << 40, Timeout: time.Minute}, &budget{limit: 1 << 30})
		defer j.end()
		var out bytes.Buffer
		var got ran
		var in *input
		got.Exit = j.run(m, func(mt *meter) instance {
			in = newInput(stdin, mt, false, record)
			return instance{stdin: in, stdout: &out, stderr: io.Discard, seed: &driver.Seed{}}
		})
		got.out, got.Input, got.InputSize = out.String(), in.digest(), in.size
		return got
	}
	record := driver.NewRecord(1 << 20)
	first := job(&pieces{sizes: []int{1, 5, buffer, buffer, 7, buffer, 1}, text: text}, record)
	if first.out != text || first.Kind != 0 || first.InputSize != size {
		t.Fatalf("%+v", first.Ran)
	}
	log, complete := record.Bytes()
	if len(log) == 0 || !complete {
		t.Fatalf("recorded %d bytes, complete %v", len(log), complete)
	}
	again := func(text string, log []byte) ran {
		record, err := driver.Replay(log)
		if err != nil {
			t.Fatal(err)
		}
		return job(strings.NewReader(text), record)
	}
	if second := again(text, log); first.differs(second) {
		t.Errorf("first %+v, repeated %+v", first.Ran, second.Ran)
	}
	if other := again(text, nil); other.out != text || other.Fuel == first.Fuel {
		t.Errorf("without the record: %+v; this test would not notice", other.Ran)
	}
	// A record of another program's run asks for more than this one reads at once.
	foreign := driver.NewRecord(100)
	_, _ = foreign.Observe(driver.ObservedInput, func() []byte { return []byte{0, 0xff, 0xff, 0x7f} })
	log, _ = foreign.Bytes()
	if got := again(text, log); got.Kind != mesh.Conflict || !strings.Contains(got.Reason, driver.ErrDiverged.Error()) {
		t.Errorf("a foreign record: %+v", got.Ran)
	}
}

// syncBuffer is an output that one goroutine writes and another watches.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// wait waits until that is what was written.
func (s *syncBuffer) wait(t *testing.T, want string) {
	for end := time.Now().Add(30 * time.Second); s.String() != want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("the output is %q, want %q", s.String(), want)
			return
		}
	}
}

// The driver passes record and seed on, and says what was read.
func TestRunIsRepeatedFromItsRecord(t *testing.T) {
	r := newRig(t, Limits{})
	w := r.workload(r.shelf.bytes(echoModule("")), mesh.Job, nil)
	stdin, feed := io.Pipe()
	var out syncBuffer
	go func() { // each part is sent when the one before has come back
		for i, part := range []string{"a", "bcd", "ef"} {
			if i > 0 {
				out.wait(t, []string{"a", "abcd"}[i-1])
			}
			_, _ = io.WriteString(feed, part)
		}
		feed.Close()
	}()
	got, err := r.Driver.Run(t.Context(), w, driver.Job{Stdin: stdin, Stdout: &out, Stderr: io.Discard})
	if err != nil || got.Kind != 0 || out.String() != "abcdef" {
		t.Fatalf("%+v, %v, %q", got, err, out.String())
	}
	if got.InputSize != 6 || got.Input != digestOf([]byte("abcdef")) || len(got.Record) == 0 || got.Cut {
		t.Errorf("got %+v", got)
	}
	again := r.job(w, driver.Job{Stdin: strings.NewReader("abcdef"), Replay: &driver.Replayed{Record: got.Record}})
	if again.Fuel != got.Fuel || again.out != "abcdef" || again.Input != got.Input {
		t.Errorf("repeated: %+v, first %+v", again.Ran, got)
	}
	if whole := r.job(w, driver.Job{Stdin: strings.NewReader("abcdef"), Whole: true}); whole.Fuel == got.Fuel {
		t.Error("one read burns as much as three: this test would not notice")
	}
	if _, err := r.Driver.Run(t.Context(), w, driver.Job{Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard, Replay: &driver.Replayed{Record: []byte{9}}}); mesh.KindOf(err) != mesh.Invalid {
		t.Errorf("a malformed record: %v", err)
	}
	// What was not read is not part of the run.
	unread := r.job(r.workload(r.shelf.bytes(sayModule("x")), mesh.Job, nil), driver.Job{Stdin: strings.NewReader("never looked at")})
	if unread.InputSize != 0 || unread.Input != emptyDigest || unread.Input != digestOf(nil) {
		t.Errorf("got %+v", unread.Ran)
	}
}

// A trap comes with the guest's stack, by the names that its module has.
func TestTrapShowsTheStack(t *testing.T) {
	r := newRig(t, Limits{})
	module := cat(trapModule(), section(0, name("name"), []byte{1}, uleb(3+len("explode")), []byte{1, 3}, name("explode")))
	got := r.job(r.workload(r.shelf.bytes(module), mesh.Job, nil), driver.Job{})
	if got.Kind != mesh.Trap || !strings.Contains(got.Trace, "explode") {
		t.Errorf("got %+v", got.Ran)
	}
	if got.errs != "" {
		t.Errorf("the guest wrote nothing, and yet there is %q", got.errs)
	}
}

// What a worker says of a run is held to its form: it may be an attacker's by now.
func TestRunOfALyingWorkerIsRefused(t *testing.T) {
	good := driver.Ran{Input: emptyDigest}
	if _, err := saneRan(good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*driver.Ran){
		"no digest":     func(r *driver.Ran) { r.Input = "" },
		"not a digest":  func(r *driver.Ran) { r.Input = "sha256:nonsense" },
		"negative size": func(r *driver.Ran) { r.InputSize = -1 },
		"a huge record": func(r *driver.Ran) { r.Record = make([]byte, driver.MaxRecord+1) },
	} {
		bad := good
		spoil(&bad)
		if _, err := saneRan(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	noisy := good
	noisy.Reason, noisy.Trace = "a\x1b[31mb\n", strings.Repeat("f\x1b\n", maxTrace)
	got, _ := saneRan(noisy)
	if strings.ContainsAny(got.Reason, "\x1b\n") || strings.Contains(got.Trace, "\x1b") || len(got.Trace) > maxTrace+8 {
		t.Errorf("%q, %d bytes of trace", got.Reason, len(got.Trace))
	}
}
