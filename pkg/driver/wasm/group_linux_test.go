package wasm

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// testGroup is a memory group for the groups of one test, so that they are not
// made in the one that the test itself is in; "" where there can be none.
func testGroup(t testing.TB) string {
	for _, base := range []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup"} {
		if _, err := os.Stat(filepath.Join(base, "cgroup.procs")); err != nil {
			continue
		}
		dir := filepath.Join(base, fmt.Sprintf("peercompute-test-%d", os.Getpid()))
		if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
			continue
		}
		t.Cleanup(func() {
			if err := os.Remove(dir); err != nil && !os.IsNotExist(err) {
				t.Errorf("a worker's memory group is left: %v", err)
			}
		})
		return dir
	}
	return ""
}
