package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal opens a pseudo-terminal; read returns what was shown on it so far.
func terminal(t *testing.T) (screen *os.File, read func() string) {
	t.Helper()
	screen, _, read = keyboard(t)
	return screen, read
}

// keyboard is a terminal with somebody at it, who types a line once nothing of it
// would be shown.
func keyboard(t *testing.T) (screen *os.File, typeHidden func(line string) error, read func() string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminal here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	screen, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	typeHidden = func(line string) error {
		for begun := time.Now(); time.Since(begun) < 20*time.Second; time.Sleep(time.Millisecond) {
			state, err := unix.IoctlGetTermios(int(master.Fd()), unix.TCGETS)
			if err != nil {
				return err
			}
			if state.Lflag&unix.ECHO == 0 {
				_, err := fmt.Fprintln(master, line)
				return err
			}
		}
		return errors.New("what is typed would be shown")
	}
	return screen, typeHidden, func() string {
		const end = "<end>"
		fmt.Fprint(screen, end)
		var got bytes.Buffer
		buf := make([]byte, 4096)
		for !strings.HasSuffix(got.String(), end) {
			n, err := master.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			got.Write(buf[:n])
		}
		return strings.TrimSuffix(got.String(), end)
	}
}

func TestColourOnlyWhereWanted(t *testing.T) {
	for _, c := range []struct {
		name, key, value string
		want             bool
	}{
		{name: "a terminal", want: true},
		{name: "NO_COLOR", key: "NO_COLOR", value: "1"},
		{name: "NO_COLOR empty", key: "NO_COLOR", want: true},
		{name: "dumb", key: "TERM", value: "dumb"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := testStdio()
			screen, read := terminal(t)
			s.err = screen
			s.env = func(k string) (string, bool) { return c.value, k == c.key }
			if code := run(context.Background(), []string{"frobnicate"}, s); code != exitUsage {
				t.Errorf("exit %d", code)
			}
			if got := read(); strings.Contains(got, "\x1b[") != c.want || !strings.Contains(got, "there is no command") {
				t.Errorf("got %q, want colour: %t", got, c.want)
			}
		})
	}
}

func TestLogOnTerminalIsFiltered(t *testing.T) {
	_, home := newFake(t)
	s := testStdio()
	if code := run(context.Background(), []string{"--home", home, "deploy", "web:1"}, s); code != exitOK {
		t.Fatalf("deploy: exit %d", code)
	}
	screen, read := terminal(t)
	s.out = screen
	if code := run(context.Background(), []string{"--home", home, "logs", "web"}, s); code != exitOK {
		t.Fatalf("logs: exit %d", code)
	}
	got := read()
	if !strings.Contains(got, "\x1b[31mred\x1b[0m done") || strings.Contains(got, "title") {
		t.Errorf("got %q, want the colour and not the title", got)
	}
}

func TestProgressOnTerminal(t *testing.T) {
	_, home := newFake(t)
	s := testStdio()
	screen, read := terminal(t)
	s.err = screen
	if code := run(context.Background(), []string{"--home", home, "deploy", "web:1"}, s); code != exitOK {
		t.Fatalf("deploy: exit %d", code)
	}
	got := read()
	if !strings.Contains(got, "\r\x1b[Kweb: pulling") || !strings.Contains(got, "\r\x1b[Kweb is running") {
		t.Errorf("got %q, want a redrawn line that gives way to the result", got)
	}
}

// A passphrase is asked for twice, and not shown.
func TestPassphraseIsAskedFor(t *testing.T) {
	for _, c := range []struct {
		name  string
		typed []string
		code  int
		said  string
	}{
		{"the same twice", []string{"correct horse battery", "correct horse battery"}, exitOK, "nobody can read it"},
		{"two that differ", []string{"correct horse battery", "correct horse saddle"}, exitFailure, "differ; nothing was written"},
		{"too short", []string{"horse"}, exitFailure, "from 12 to 1024"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, home := newFake(t)
			file := filepath.Join(t.TempDir(), "backup")
			s := testStdio()
			screen, typeHidden, read := keyboard(t)
			s.in, s.err = screen, screen
			typist := make(chan error, 1)
			go func() {
				for _, line := range c.typed {
					if err := typeHidden(line); err != nil {
						typist <- err
						return
					}
				}
				typist <- nil
			}()
			code := run(context.Background(), []string{"--home", home, "identity", "export", "--out", file}, s)
			if err := <-typist; err != nil || code != c.code {
				t.Errorf("exit %d, want %d; %v", code, c.code, err)
			}
			got := read()
			if !strings.Contains(got, "passphrase for the backup: ") || !strings.Contains(got, c.said) || strings.Contains(got, "horse") {
				t.Errorf("on the terminal: %q", got)
			}
			if _, err := os.Stat(file); (err == nil) != (c.code == exitOK) {
				t.Errorf("the file: %v", err)
			}
		})
	}
}
