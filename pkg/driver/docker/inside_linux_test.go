package docker

import (
	"os"
	"testing"
)

const devTable = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 1000 10 0 0 0 0 0 0 1000 10 0 0 0 0 0 0
   out:  250  2 0 0 0 0 0 0   70  1 0 0 0 0 0 0
`

func TestDevices(t *testing.T) {
	if in, out := devices([]byte(devTable)); in != 250 || out != 70 {
		t.Errorf("got %d and %d, want 250 and 70", in, out)
	}
}

func FuzzDevices(f *testing.F) {
	f.Add([]byte(devTable))
	if own, err := os.ReadFile("/proc/self/net/dev"); err == nil {
		f.Add(own)
	}
	f.Add([]byte("x: 1 2 3\ny:9223372036854775807 0 0 0 0 0 0 0 -1\n:::"))
	f.Fuzz(func(_ *testing.T, table []byte) { devices(table) })
}
