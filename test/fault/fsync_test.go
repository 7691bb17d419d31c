package fault

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/testkit"
	"peercompute/test/internal/testmesh"
)

// The disk reports an error for the Nth fsync of a whole peerd, for one N after the
// other: it ends, and nothing that it had acknowledged is missing when it runs again
// (test plan, fsync error).
func TestPeerdFsyncError(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "strace")
	m := testmesh.New(t)
	bob := m.Peer("bob")
	module := testmesh.Tiny(t, "hello")
	acked := map[string]bool{}
	injected, ended, kept := 0, 0, 0
	starts := 0 // that the error ended
	for n := 1; n <= 8+scale(40)/4; n++ {
		bob.Stop()
		trace := filepath.Join(t.TempDir(), "trace")
		bob.Wrap = []string{
			"strace", "-D", "-f", "-qq", "--seccomp-bpf", "-o", trace, "-e", "trace=fsync,fdatasync",
			"-e", fmt.Sprintf("inject=fsync,fdatasync:error=EIO:when=%d+", n),
		}
		up := bob.TryStart()
		if !up {
			starts++
		}
		for i := 0; up && i < 12; i++ {
			name := fmt.Sprintf("n%d-%d", n, i)
			r := bob.Ctl("deploy", module, "--peer", "self", "--name", name)
			if r.Code == 0 {
				acked[name] = true
			}
			if bob.Ended(0) {
				break
			}
			if i%2 == 0 { // begun, a removal may be carried out although its answer is lost
				delete(acked, name)
				_ = bob.Ctl("rm", "-f", name)
			}
		}
		text, err := os.ReadFile(trace)
		if err != nil {
			t.Fatal(err)
		}
		hit := strings.Contains(string(text), "INJECTED")
		if hit {
			injected++
			if !bob.Ended(20 * time.Second) {
				t.Errorf("fsync error %d: peerd goes on", n)
				bob.Kill()
			} else {
				ended++
				bob.Gone()
			}
			said := "state file cannot be written"
			if !up {
				said = "input/output error"
			}
			if !strings.Contains(bob.LogTail(20), said) {
				t.Errorf("fsync error %d: peerd does not say why it ended:\n%s", n, bob.LogTail(5))
			}
		} else if !up {
			t.Fatalf("fsync error %d: peerd did not start, and met no error:\n%s", n, bob.LogTail(20))
		} else {
			bob.Kill()
		}
		bob.Wrap = nil
		bob.Start()
		have := list(t, bob)
		for name := range acked {
			if _, ok := have[name]; !ok {
				t.Errorf("fsync error %d: %s was acknowledged and is gone", n, name)
			}
		}
		kept += len(acked)
		clear(acked)
		for name := range have {
			bob.Must("rm", "-f", name)
		}
	}
	t.Logf("%d errors injected, peerd ended %d times, %d of them before it answered, %d acknowledged workloads were there after it, 0 lost", injected, ended, starts, kept)
	if injected == 0 || kept == 0 {
		t.Error("no error was injected")
	}
}
