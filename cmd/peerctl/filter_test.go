package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

func filtered(t *testing.T, chunks ...string) string {
	t.Helper()
	var out bytes.Buffer
	f := &filter{w: &out}
	for _, c := range chunks {
		if n, err := f.Write([]byte(c)); n != len(c) || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
	}
	return out.String()
}

func TestFilter(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"text", "a\tb\r\nünï日本\n", "a\tb\r\nünï日本\n"},
		{"colour", "\x1b[1;31mred\x1b[0m\x1b[m", "\x1b[1;31mred\x1b[0m\x1b[m"},
		{"title, BEL", "a\x1b]0;title\x07b", "ab"},
		{"clipboard, ST", "a\x1b]52;c;ZXZpbA==\x1b\\b", "ab"},
		{"cursor", "a\x1b[2J\x1b[Hb\x1b[1Ac", "abc"},
		{"modes", "a\x1b[?1049hb\x1b[>4;2mc", "abc"},
		{"device string", "a\x1bP1$r\x1b\\b", "ab"},
		{"reset", "a\x1bcb", "ab"},
		{"bell and backspace", "a\x07\x08\x7fb", "ab"},
		{"8-bit forms", "a\u009b2Jb\u009d0;x\u0085", "a2Jb0;x"},
		{"C2 as text", "a\u00a0b", "a\u00a0b"},
		{"8-bit form around another", "a\xc2\x07\x9bb", "a\x9bb"},
		{"endless colour", "a\x1b[" + strings.Repeat("1;", 50) + "mb", "ab"},
		{"escape in escape", "a\x1b\x1b[31mb\x1b[\x1b[1mc", "a\x1b[31mb\x1b[1mc"},
		{"line feed in escape", "a\x1b[3\nb", "a\nb"},
	} {
		if got := filtered(t, c.in); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
		// However the bytes are cut into writes.
		if got := filtered(t, strings.Split(c.in, "")...); got != c.want {
			t.Errorf("%s, one by one: got %q, want %q", c.name, got, c.want)
		}
	}
}

// FuzzFilter checks that of all control sequences only colours pass.
func FuzzFilter(f *testing.F) {
	f.Add([]byte("a\x1b[31mb\x1b]0;x\x07"), 3)
	colour := regexp.MustCompile(`\x1b\[[0-9;:]*m`)
	f.Fuzz(func(t *testing.T, in []byte, at int) {
		at = max(0, min(at, len(in)))
		got := filtered(t, string(in[:at]), string(in[at:]))
		rest := colour.ReplaceAllString(got, "")
		for _, r := range rest {
			if unicode.IsControl(r) && !strings.ContainsRune("\n\r\t", r) {
				t.Fatalf("%q passed as %q", in, got)
			}
		}
	})
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain ünï": "plain ünï", "a\nb\tc": "a b c", "a\x1b[31m": "a\ufffd[31m", "\u202egpj.exe": "\ufffdgpj.exe", "\u009b": "\ufffd", "\xff": "\ufffd",
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}
