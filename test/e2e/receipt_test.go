package e2e

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"peercompute/test/internal/testmesh"
)

// receipt is what `receipts ls -o json` promises to outside programs.
type receipt struct {
	ID         string
	Role       string
	Peer       string
	Asker      string
	Module     string
	Input      string
	Output     string
	Log        string
	Exit       int
	Kind       string
	Fuel       uint64
	PeakMemory uint64 `json:"peak_memory"`
	Flaw       string
	Envelope   string
	Verified   []struct{ Agrees bool }
}

func receipts(t *testing.T, n *testmesh.Node, args ...string) []receipt {
	t.Helper()
	return parse[[]receipt](t, n.Must(append([]string{"receipts", "ls", "-o", "json"}, args...)...))
}

type used struct {
	Jobs             int64
	Fuel             uint64
	ContainerSeconds uint64 `json:"container_seconds"`
}

// balance is what `balance -o json` promises to outside programs.
type balance struct {
	Peer, Debtor string
	Flaw         string
	There, Here  used
	Net          int64 `json:"net_fuel"`
	NetSeconds   int64 `json:"net_container_seconds"`
	Amount       float64
}

func balances(t *testing.T, n *testmesh.Node) []balance {
	t.Helper()
	return parse[[]balance](t, n.Must("balance", "-o", "json"))
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func digestOfFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return digest(b)
}

// Each run gives a receipt that both sides keep, and that anybody can verify.
func TestReceipts(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.Peer("bob")
	m.Lend(bob, alice)
	count := testmesh.Wasm(t, "wordcount")
	text := []byte("one two\nthree\n")
	file := filepath.Join(t.TempDir(), "receipt.json")
	r := alice.CtlIn(text, "run", "--peer", "bob", "--receipt", file, count, "--", "-exit", "7")
	if r.Code != 7 {
		t.Fatalf("status %d: %s", r.Code, r.Stderr)
	}
	theirs, ours := receipts(t, alice), receipts(t, bob)
	if len(theirs) != 1 || len(ours) != 1 {
		t.Fatalf("alice has %d receipts, bob %d, want one each", len(theirs), len(ours))
	}
	got := theirs[0]
	if got.Peer != "bob" || got.Asker != "self" || got.Role != "asked" || ours[0].Role != "ran" || ours[0].Peer != "self" || ours[0].Asker != "alice" {
		t.Errorf("alice: %+v\nbob: %+v", got, ours[0])
	}
	if got.Exit != 7 || got.Fuel == 0 || got.PeakMemory == 0 || got.Flaw != "" {
		t.Errorf("%+v", got)
	}
	for what, is := range map[string][2]string{
		"module": {got.Module, digestOfFile(t, count)}, "input": {got.Input, digest(text)},
		"output": {got.Output, digest([]byte(r.Stdout))}, "log": {got.Log, digest([]byte(r.Stderr))},
	} {
		if is[0] != is[1] {
			t.Errorf("%s: %s, want %s", what, is[0], is[1])
		}
	}
	if got.ID != ours[0].ID || got.Fuel != ours[0].Fuel {
		t.Errorf("the sides disagree: %+v, %+v", got, ours[0])
	}

	// Both sides count it alike, from where each stands.
	mine, its := balances(t, alice), balances(t, bob)
	want := used{Jobs: 1, Fuel: got.Fuel}
	if len(mine) != 1 || mine[0].Peer != "bob" || mine[0].There != want || mine[0].Here != (used{}) || mine[0].Debtor != "self" || mine[0].Net != int64(got.Fuel) {
		t.Errorf("alice's balance: %+v", mine)
	}
	if len(its) != 1 || its[0].Peer != "alice" || its[0].Here != want || its[0].There != (used{}) || its[0].Debtor != "alice" || its[0].Net != int64(got.Fuel) {
		t.Errorf("bob's balance: %+v", its)
	}

	// The file that was written is the exported one, and holds at a stranger's too.
	if exported := alice.Must("receipts", "export", got.ID); exported != string(mustRead(t, file)) {
		t.Errorf("exported %s\nwritten %s", exported, mustRead(t, file))
	}
	carol := m.Peer("carol")
	if out := carol.Must("receipts", "verify", file); !strings.Contains(out, bob.ID().String()) || !strings.Contains(out, "exit 7") {
		t.Errorf("carol: %s", out)
	}
	alice.Must("receipts", "verify", got.ID[:6])

	// A changed one does not.
	env, err := base64.StdEncoding.DecodeString(parse[receipt](t, alice.Must("receipts", "show", got.ID, "-o", "json")).Envelope)
	if err != nil || len(env) < 100 {
		t.Fatalf("%v, %d bytes", err, len(env))
	}
	env[len(env)/2] ^= 1
	forged := filepath.Join(t.TempDir(), "forged.json")
	body := `{"format":"peercompute-receipt/1","envelope":"` + base64.StdEncoding.EncodeToString(env) + `"}`
	if err := os.WriteFile(forged, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, carol.Ctl("receipts", "verify", forged), "[wire.envelope]")

	// The same run again, and here: the same receipt but for who and when.
	alice.CtlIn(text, "run", "--peer", "self", count, "--", "-exit", "7")
	for _, again := range receipts(t, alice) {
		if again.Output != got.Output || again.PeakMemory != got.PeakMemory {
			t.Errorf("%+v\ndiffers from %+v", again, got)
		}
	}
	if list := receipts(t, alice, "--peer", "bob"); len(list) != 1 || list[0].ID != got.ID {
		t.Errorf("of bob: %+v", list)
	}
}

func mustRead(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Any peer will do: the one that takes it is named.
func TestRunAnywhere(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob, carol := m.Peer("alice"), m.Peer("bob"), m.Peer("carol")
	m.Lend(bob, alice, "--allow", "observe")
	m.Lend(carol, alice)
	tiny := testmesh.Tiny(t, "hello")
	for range 3 {
		r := alice.Ctl("run", "--any", tiny)
		if r.Code != 0 || r.Stderr != "runs on carol\n" || !strings.HasSuffix(r.Stdout, "hello") {
			t.Fatalf("status %d, stdout %q, stderr %q", r.Code, r.Stdout, r.Stderr)
		}
	}
	carol.Stop()
	refused(t, alice.Ctl("run", "--any", tiny), "none of 2 peers takes it", "bob: you may not deploy here", "carol: cannot reach carol")
	if r := alice.Ctl("run", "--any", "--peer", "bob", tiny); r.Code == 0 || !strings.Contains(r.Stderr, "contradict") {
		t.Errorf("%+v", r)
	}
}

// What ended a job is said in words and, for programs, as a kind.
func TestRunEndsInWords(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.Peer("bob")
	m.Lend(bob, alice)
	spin := testmesh.Tiny(t, "")
	for _, tc := range []struct {
		flag, value string
		code        int
		kind, words string
	}{
		{"--fuel", "5M", 152, "out-of-fuel", "tiny: out of fuel"},
		{"--timeout", "300ms", 124, "timeout", "tiny: deadline passed"},
	} {
		args := []string{"run", "--peer", "bob", "--fuel", "1T", tc.flag, tc.value, spin}
		r := alice.Ctl(args...)
		if r.Code != tc.code || !strings.Contains(r.Stderr, tc.words) || !strings.Contains(r.Stderr, "next: ") {
			t.Errorf("%s: status %d, stderr %q", tc.flag, r.Code, r.Stderr)
		}
		r = alice.Ctl(append(args, "-o", "json")...)
		type line struct {
			Error struct{ Kind, At string }
		}
		if got := parse[line](t, r.Stderr); r.Code != tc.code || got.Error.Kind != tc.kind || got.Error.At != "bob" {
			t.Errorf("%s: status %d, stderr %q", tc.flag, r.Code, r.Stderr)
		}
	}
	if list := receipts(t, alice); len(list) != 4 || list[0].Kind != "timeout" || list[3].Kind != "out-of-fuel" || list[3].Fuel != 5_000_000 {
		t.Errorf("%+v", list)
	}
}

// What a run heard from the network is recorded: it can be repeated where nothing is
// to be heard, by a peer that would let it hear nothing.
func TestVerifiedRunWithNetwork(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob, carol := m.Peer("alice"), m.Peer("bob"), m.Peer("carol")
	m.Lend(bob, alice)
	m.Lend(carol, alice)
	bob.Must("peers", "allow", "alice", "--egress", "allow,private")
	var asked atomic.Int32
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, "answer %d", asked.Add(1)) }))
	defer web.Close()
	fetch, host := testmesh.Wasm(t, "fetch"), strings.TrimPrefix(web.URL, "http://")
	if r := alice.Ctl("run", "--peer", "bob", "--allow-host", host, fetch, web.URL); r.Code != 0 || r.Stdout != "answer 1" {
		t.Fatalf("%+v", r)
	}
	refused(t, alice.Ctl("run", "--peer", "carol", "--allow-host", host, fetch, web.URL), "[grant.egress]")
	if out := alice.Must("verify", receipts(t, alice, "--peer", "bob")[0].ID, "--by", "carol"); !strings.Contains(out, "carol agrees with bob") {
		t.Errorf("%s", out)
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the web was asked %d times", n)
	}
}

// A run can be repeated elsewhere: an honest receipt is confirmed to the unit of fuel,
// also of a streamed input, and of a queued job.
func TestVerifiedRun(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob, carol := m.Peer("alice"), m.Peer("bob"), m.Peer("carol")
	m.Lend(bob, alice)
	m.Lend(carol, alice)
	count := testmesh.Wasm(t, "wordcount")
	text := strings.Repeat("three short words\n", 20_000)
	if r := alice.CtlIn([]byte(text), "run", "--peer", "bob", count, "--", "-exit", "7"); r.Code != 7 {
		t.Fatalf("%+v", r)
	}
	id := receipts(t, alice)[0].ID
	if out := alice.Must("verify", id[:8], "--by", "carol"); !strings.Contains(out, "carol agrees with bob: output sha256:") {
		t.Errorf("%s", out)
	}
	alice.Must("verify", id, "--by", "self")
	queued := submit(t, alice, text, "--peer", "bob", count)
	alice.Ctl("job", "wait", queued)
	alice.Must("verify", queued, "--by", "carol")
	if list := receipts(t, alice, "--peer", "bob"); len(list) != 2 {
		t.Errorf("of bob: %+v", list)
	}
	refused(t, bob.Ctl("verify", id, "--by", "self"), "asked for by alice")
	r := alice.Ctl("run", "--peer", "bob", "--fuel", "1T", "--timeout", "300ms", testmesh.Tiny(t, ""))
	if r.Code != 124 {
		t.Fatalf("%+v", r)
	}
	refused(t, alice.Ctl("verify", receipts(t, alice)[0].ID, "--by", "carol"), "ended from outside")
}
