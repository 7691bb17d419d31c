package main

import (
	"strings"
	"testing"
)

func TestCureFor(t *testing.T) {
	for line, want := range map[string]string{
		`[emerg] mkdir() "/var/cache/x" failed (30: Read-only file system)`:                                  "--tmpfs /var/cache (",
		"open /data/x: read-only file system":                                                                "--tmpfs /data (",
		`FATAL:  could not create lock file "/var/run/postgresql/.s.PGSQL.5432.lock": Read-only file system`: "--tmpfs /var/run/postgresql (",
		"mkdir /state: Read-only file system":                                                                "--tmpfs /state (",
		"cannot write: Read-only file system":                                                                "--tmpfs DIR (",
		`cannot write "/proc/sys/x": read-only file system`:                                                  "--tmpfs DIR (",
		"write error: No space left on device":                                                               "--disk",
		"initdb: error: could not look up effective user ID 1879048484: user does not exist":                 "libnss_wrapper",
		"all is well": "",
	} {
		if got := cureFor([]string{"starting", line}); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
}
