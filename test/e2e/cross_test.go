package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"peercompute/test/internal/testmesh"
)

// Every program builds for every platform that is promised.
func TestCrossBuild(t *testing.T) {
	if testing.Short() {
		t.Skip("builds everything eleven times over; not with -short")
	}
	root := testmesh.ModuleRoot(t)
	all := []string{"./cmd/peerctl", "./cmd/peerd", "./cmd/peergate"}
	for _, c := range []struct {
		platform string
		programs []string
	}{
		{"linux/amd64", all},
		{"linux/arm64", all},
		{"darwin/amd64", all},
		{"darwin/arm64", all},
		{"windows/amd64", all[:1]},
		{"windows/arm64", all[:1]},
	} {
		t.Run(c.platform, func(t *testing.T) {
			goos, arch, _ := strings.Cut(c.platform, "/")
			cmd := exec.CommandContext(t.Context(), "go", append([]string{"build", "-o", os.DevNull}, c.programs...)...)
			cmd.Dir = root
			cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+arch, "CGO_ENABLED=0")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
