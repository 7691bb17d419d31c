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
	k := newKeyboard(t)
	return k.screen, k.read
}

// keyboard is a terminal with somebody at it, who reads before typing.
type keyboard struct {
	screen, master *os.File
	shown          bytes.Buffer
	answered       int // of what was shown
}

func newKeyboard(t *testing.T) *keyboard {
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
	screen, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	return &keyboard{screen: screen, master: master}
}

const wait = 20 * time.Second

// read returns what was shown so far.
func (k *keyboard) read() string {
	const end = "<end>"
	fmt.Fprint(k.screen, end)
	if err := k.await(end); err != nil {
		return err.Error()
	}
	return strings.TrimSuffix(k.shown.String(), end)
}

// await waits until text is shown after what was awaited before.
func (k *keyboard) await(text string) error {
	buf := make([]byte, 4096)
	for begun := time.Now(); !strings.Contains(k.shown.String()[k.answered:], text); {
		ready := []unix.PollFd{{Fd: int32(k.master.Fd()), Events: unix.POLLIN}}
		if n, err := unix.Poll(ready, 100); err != nil && err != unix.EINTR {
			return err
		} else if n > 0 {
			n, err := k.master.Read(buf)
			if err != nil {
				return err
			}
			k.shown.Write(buf[:n])
		}
		if time.Since(begun) > wait {
			return fmt.Errorf("%q was not shown, but %q", text, k.shown.String())
		}
	}
	k.answered = k.shown.Len()
	return nil
}

// answer types a line after a question, once nothing of it would be shown.
func (k *keyboard) answer(question, line string) error {
	if err := k.await(question); err != nil {
		return err
	}
	for begun := time.Now(); time.Since(begun) < wait; time.Sleep(time.Millisecond) {
		state, err := unix.IoctlGetTermios(int(k.master.Fd()), unix.TCGETS)
		if err != nil {
			return err
		}
		if state.Lflag&unix.ECHO == 0 {
			_, err := fmt.Fprintln(k.master, line)
			return err
		}
	}
	return errors.New("what is typed would be shown")
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
			k := newKeyboard(t)
			s.in, s.err = k.screen, k.screen
			typist := make(chan error, 1)
			go func() {
				for i, line := range c.typed {
					if err := k.answer([]string{"passphrase for the backup: ", "once more: "}[i], line); err != nil {
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
			got := k.read()
			if !strings.Contains(got, "passphrase for the backup: ") || !strings.Contains(got, c.said) || strings.Contains(got, "horse") {
				t.Errorf("on the terminal: %q", got)
			}
			if _, err := os.Stat(file); (err == nil) != (c.code == exitOK) {
				t.Errorf("the file: %v", err)
			}
		})
	}
}

// A secret's value is asked for where somebody is there, and not shown.
func TestSecretIsAskedFor(t *testing.T) {
	_, home := newFake(t)
	s := testStdio()
	k := newKeyboard(t)
	s.in, s.err = k.screen, k.screen
	typist := make(chan error, 1)
	go func() { typist <- k.answer("value of db: ", "hunter2") }()
	code := run(context.Background(), []string{"--home", home, "secret", "set", "db", "--peer", "bob"}, s)
	if err := <-typist; err != nil || code != exitOK {
		t.Errorf("exit %d, want %d; %v", code, exitOK, err)
	}
	if got := k.read(); got != "value of db: \r\n" {
		t.Errorf("on the terminal: %q", got)
	}
}
