// Package testkit is what tests of several packages share: it names what a test
// needs and skips, or fails where the run requires it.
package testkit

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// RequireEnv lists, comma-separated, the features whose absence fails a test
// instead of skipping it; "all" stands for every feature.
const RequireEnv = "PEERCOMPUTE_REQUIRE"

// Need skips the test if the feature is not there. Features: docker (an engine
// answers), root, linux, netns (network namespaces can be made), tun (programs can have
// network devices), loopfs (a file can be mounted as a file system), or the name of a
// program on the PATH.
func Need(t testing.TB, feature string) {
	t.Helper()
	why := missing(feature)
	if why == "" {
		return
	}
	required := strings.Split(os.Getenv(RequireEnv), ",")
	if slices.Contains(required, feature) || slices.Contains(required, "all") {
		t.Fatalf("%s is required by %s and missing: %s", feature, RequireEnv, why)
	}
	t.Skipf("needs %s: %s", feature, why)
}

// Library finds a library of this machine by its name; "" = it is not there.
func Library(name string) string {
	dirs := filepath.SplitList(os.Getenv("LD_LIBRARY_PATH"))
	for _, dir := range append(dirs, "/usr/lib/*", "/usr/lib") {
		if found, _ := filepath.Glob(filepath.Join(dir, name+"*")); len(found) > 0 {
			return found[0]
		}
	}
	return ""
}

func missing(feature string) string {
	switch feature {
	case "docker":
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		var d net.Dialer
		c, err := d.DialContext(ctx, "unix", "/var/run/docker.sock")
		if err != nil {
			return "no Docker engine answers at /var/run/docker.sock"
		}
		c.Close()
	case "root":
		if os.Geteuid() != 0 {
			return "not running as root"
		}
	case "linux":
		if _, err := os.Stat("/proc/self/status"); err != nil {
			return "not Linux"
		}
	case "netns":
		return firstMissing(canUnshare, "root", "ip")
	case "tun":
		return firstMissing(canTunnel, "root")
	case "loopfs":
		return firstMissing(canLoop, "root", "mkfs.ext4", "mount", "umount")
	case "wasi-libc":
		cmd := exec.Command("clang", "--target=wasm32-wasi", "-x", "c", "-o", os.DevNull, "-")
		cmd.Stdin = strings.NewReader("int main(void) { return 0; }")
		if err := cmd.Run(); err != nil {
			return "clang builds nothing for wasm32-wasi here (Debian: clang lld wasi-libc libclang-rt-dev-wasm32): " + err.Error()
		}
	case "postgresql":
		if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb"); len(found) == 0 {
			return "there is no /usr/lib/postgresql/VERSION/bin/initdb"
		}
	default:
		if strings.HasSuffix(feature, ".so") {
			if Library(feature) == "" {
				return feature + " is not installed"
			}
			return ""
		}
		if _, err := exec.LookPath(feature); err != nil {
			return feature + " is not on the PATH"
		}
	}
	return ""
}

// firstMissing is what stands in the way of a feature that needs others and a try.
func firstMissing(try func() string, needs ...string) string {
	for _, n := range needs {
		if why := missing(n); why != "" {
			return why
		}
	}
	return try()
}
