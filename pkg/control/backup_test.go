package control

import (
	"strings"
	"testing"

	"peercompute/pkg/mesh"
)

func TestPassphraseHasALength(t *testing.T) {
	for n, ok := range map[int]bool{0: false, MinPassphrase - 1: false, MinPassphrase: true, maxPassphrase: true, maxPassphrase + 1: false} {
		if err := CheckPassphrase(strings.Repeat("x", n)); (err == nil) != ok || !ok && mesh.AsError(err).Rule != "backup.passphrase" {
			t.Errorf("%d characters: %v, want it taken %t", n, err, ok)
		}
	}
}
