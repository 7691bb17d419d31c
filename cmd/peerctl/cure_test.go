package main

import (
	"strings"
	"testing"
)

func TestCureFor(t *testing.T) {
	for line, want := range map[string]string{
		`[emerg] mkdir() "/var/cache/x" failed (30: Read-only file system)`: "--tmpfs",
		"open /data/x: read-only file system":                               "--tmpfs",
		"write error: No space left on device":                              "--disk",
		"all is well":                                                       "",
	} {
		if got := cureFor([]string{"starting", line}); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
}
