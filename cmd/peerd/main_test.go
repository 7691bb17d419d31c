package main

import (
	"bytes"
	"context"
	"testing"
)

// To be told to stop is no failure, also while the node still starts.
func TestToldToStopWhileItStarts(t *testing.T) {
	cfg := defaultConfig()
	cfg.Listen = []string{"/ip4/127.0.0.1/tcp/0"}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 { // what it is told in the middle of differs
		var log bytes.Buffer
		if err := run(ctx, t.TempDir(), cfg, accepted{}, &log); err != nil {
			t.Fatalf("it ended with %v\n%s", err, &log)
		}
	}
}
