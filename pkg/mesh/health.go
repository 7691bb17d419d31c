package mesh

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// HealthCheck is a way to ask whether a workload is well.
type HealthCheck string

// The checks.
const (
	CheckHTTP    HealthCheck = "http" // a GET that is answered with a status from 200 to 399
	CheckTCP     HealthCheck = "tcp"  // a connection that is accepted
	CheckCommand HealthCheck = "cmd"  // a program inside the container that ends with status 0
)

// Health says how a workload is asked whether it is well, and what is made of the
// answers. The zero value of a duration or count means the default.
type Health struct {
	Check    HealthCheck   `json:"check" cbor:"1,keyasint"`
	Path     string        `json:"path,omitempty" cbor:"2,keyasint,omitempty"`     // http: begins with /
	Port     uint16        `json:"port,omitempty" cbor:"3,keyasint,omitempty"`     // containers: 0 = the workload's own
	Command  []string      `json:"command,omitempty" cbor:"4,keyasint,omitempty"`  // cmd: program and arguments; no shell is put between
	Interval time.Duration `json:"interval,omitempty" cbor:"5,keyasint,omitempty"` // from one check to the next, ns
	Timeout  time.Duration `json:"timeout,omitempty" cbor:"6,keyasint,omitempty"`  // of one check, ns
	Retries  int           `json:"retries,omitempty" cbor:"7,keyasint,omitempty"`  // failures in a row after which it is started again
}

// Defaults and bounds of a health check.
const (
	DefaultHealthInterval = 10 * time.Second
	DefaultHealthTimeout  = 2 * time.Second
	DefaultHealthRetries  = 3

	MinHealthInterval = time.Second
	MaxHealthInterval = time.Hour
	MinHealthTimeout  = 10 * time.Millisecond
	MaxHealthTimeout  = time.Minute
	MaxHealthRetries  = 100
	maxHealthPath     = 1024 // bytes
	maxHealthCommand  = 4096 // bytes, of all words together
	maxHealthWords    = 64
)

// HealthOK is Status.Health of a workload whose last check passed. Any other text
// is "unhealthy: " and why.
const HealthOK = "healthy"

// Unhealthy is Status.Health for a check that failed for this reason.
func Unhealthy(why string) string { return "unhealthy: " + why }

// WithDefaults fills in what was left zero.
func (h Health) WithDefaults() Health {
	setDefault(&h.Interval, DefaultHealthInterval)
	setDefault(&h.Timeout, DefaultHealthTimeout)
	setDefault(&h.Retries, DefaultHealthRetries)
	return h
}

// String is the check as a person writes it, without its times.
func (h Health) String() string {
	s := string(h.Check)
	switch h.Check {
	case CheckHTTP:
		s += ":" + h.Path
		if h.Port != 0 {
			s += "@" + strconv.Itoa(int(h.Port))
		}
	case CheckTCP:
		if h.Port != 0 {
			s += ":" + strconv.Itoa(int(h.Port))
		}
	case CheckCommand:
		s += ":" + strings.Join(h.Command, " ")
	}
	return s
}

// ParseHealth reads http:/path[@PORT], tcp[:PORT] or cmd:PROGRAM [ARG…]. Words of a
// command are kept together by single or double quotes; nothing is expanded.
func ParseHealth(s string) (Health, error) {
	bad := func(format string, args ...any) (Health, error) {
		return Health{}, Errorf(Invalid, "health check %q: "+format, append([]any{clip(s, 80)}, args...)...).
			WithHint("a check is http:/path[@PORT], tcp[:PORT] or cmd:'PROGRAM ARG…'")
	}
	kind, rest, given := strings.Cut(s, ":")
	h := Health{Check: HealthCheck(kind)}
	port := func(p string) bool {
		n, err := strconv.ParseUint(p, 10, 16)
		h.Port = uint16(n)
		return err == nil && n != 0
	}
	switch h.Check {
	case CheckHTTP:
		h.Path = rest
		if path, p, ok := cutLast(rest, "@"); ok && strings.Trim(p, "0123456789") == "" {
			if h.Path = path; !port(p) {
				return bad("ports are numbers from 1 to 65535")
			}
		}
	case CheckTCP:
		if given && !port(rest) {
			return bad("ports are numbers from 1 to 65535")
		}
	case CheckCommand:
		words, err := splitWords(rest)
		if err != nil {
			return bad("%s", err)
		}
		h.Command = words
	default:
		return bad("%q is not http, tcp or cmd", clip(kind, 20))
	}
	if why := h.wrong(); why != "" {
		return bad("%s", why)
	}
	return h, nil
}

// wrong says what is wrong with the form of the check itself; empty = nothing.
func (h Health) wrong() string {
	switch h.Check {
	case CheckHTTP:
		if h.Path == "" || h.Path[0] != '/' || len(h.Path) > maxHealthPath || strings.ContainsFunc(h.Path, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			return fmt.Sprintf("a path begins with / and has at most %d printable ASCII characters without blanks", maxHealthPath)
		}
	case CheckTCP:
	case CheckCommand:
		n := 0
		for _, w := range h.Command {
			n += len(w)
			if strings.ContainsRune(w, 0) {
				return "a word of the command contains a NUL byte"
			}
		}
		if len(h.Command) == 0 || h.Command[0] == "" || len(h.Command) > maxHealthWords || n > maxHealthCommand {
			return fmt.Sprintf("a command has 1 to %d words of %d bytes in all", maxHealthWords, maxHealthCommand)
		}
	default:
		return fmt.Sprintf("%q is not http, tcp or cmd", clip(string(h.Check), 20))
	}
	if h.Check != CheckHTTP && h.Path != "" || h.Check != CheckCommand && len(h.Command) > 0 || h.Check == CheckCommand && h.Port != 0 {
		return "it mixes what belongs to different checks"
	}
	return ""
}

// validateHealth says what is wrong with the spec's health check.
func (s Spec) validateHealth(say func(string, ...any)) {
	h := s.Health
	if h == nil {
		return
	}
	if why := h.wrong(); why != "" {
		say("health check: %s", why)
		return
	}
	full := h.WithDefaults()
	if full.Interval < MinHealthInterval || full.Interval > MaxHealthInterval {
		say("a health check's interval is from %s to %s", MinHealthInterval, MaxHealthInterval)
	}
	if full.Timeout < MinHealthTimeout || full.Timeout > MaxHealthTimeout {
		say("a health check's timeout is from %s to %s", MinHealthTimeout, MaxHealthTimeout)
	}
	if full.Retries < 1 || full.Retries > MaxHealthRetries {
		say("a health check's retries are from 1 to %d", MaxHealthRetries)
	}
	switch {
	case s.Runtime == Wasm && s.Shape == Job:
		say("a job ends by itself: it has no health check")
	case s.Runtime == Wasm && h.Check == CheckCommand:
		say("a WASM service has no programs that a health check could run: use http or tcp")
	case s.Runtime == Wasm && h.Port != 0:
		say("a WASM service has one port: a health check names none")
	case s.Runtime == Container && h.Check != CheckCommand && h.Port == 0 && s.Port == 0:
		say("a health check by %s needs the port that the container listens on", h.Check)
	}
}

// splitWords splits a command as a shell does, quotes and backslashes included, but
// expands nothing.
func splitWords(s string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord := false
	var quote rune
	escaped := false
	for _, r := range s {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word.WriteRune(r)
			}
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == ' ' || r == '\t' || r == '\n':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 || escaped {
		return nil, fmt.Errorf("a quote is not closed")
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
