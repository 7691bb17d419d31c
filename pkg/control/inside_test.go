package control

import (
	"bytes"
	"testing"
)

// A peer may send output of something that has none: it is refused, and harms nobody.
func TestOutputThatNobodyAskedFor(t *testing.T) {
	if err := give(nil, []byte("x")); err == nil {
		t.Error("it was taken")
	}
	var out bytes.Buffer
	if err := give(&out, []byte("x")); err != nil || out.String() != "x" {
		t.Errorf("what was asked for: %q, %v", out.String(), err)
	}
}
