//go:build !linux

package peernet

import "net"

// boundQueue does nothing here: short answers may wait behind long ones.
func boundQueue(net.Conn) {}
