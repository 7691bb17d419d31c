package docker_test

import (
	"fmt"
	"strconv"

	"peercompute/pkg/driver"
)

var logAll driver.LogOptions

func itoa(n int) string { return strconv.Itoa(n) }

// fmtSscanf reads the first line that the actor's part "env" prints.
func fmtSscanf(s string, into ...any) (int, error) {
	return fmt.Sscanf(s, "uid %d gid %d host %s home %s dir %s", into...)
}
