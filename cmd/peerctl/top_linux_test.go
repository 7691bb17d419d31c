package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/control"
)

func TestTopOnATerminal(t *testing.T) {
	n, home := newFake(t)
	if code := run(t.Context(), []string{"--home", home, "deploy", "hello:1", "--name", "web"}, testStdio()); code != exitOK {
		t.Fatalf("deploy: exit %d", code)
	}
	screen, read := terminal(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	a := &app{stdio: testStdio(), home: home}
	a.out = screen
	pages := 0
	a.now = func() time.Time { // asked once for each page
		if pages++; pages == 3 {
			cancel()
		}
		return time.Now()
	}
	go func() { <-n.waiting }()
	if err := a.topLive(ctx, control.StatsQuery{Every: time.Second}); !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
	got := read()
	if !strings.HasPrefix(got, screenOn) || !strings.HasSuffix(got, screenOff) || pages < 3 || strings.Count(got, "\x1b[H") != pages || !strings.Contains(got, "web") || !strings.Contains(got, "0.50 / 1.00") {
		t.Errorf("it shows %q", got)
	}
}
