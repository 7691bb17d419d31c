package docker

import (
	"fmt"
	"strconv"
	"strings"
)

// hole is a known hole in a component of the engine, and the versions that closed it:
// one for each line of releases that was mended, oldest first. Lines before the first
// were not.
type hole struct {
	component string // as the engine calls it
	closed    []string
	risk      string
}

// holes are those by which a program in a container such as ours could get out, or get
// more than it was given.
func holes() []hole {
	return []hole{
		{"runc", []string{"1.1.12"}, "CVE-2024-21626, an image can reach the host's files through a descriptor that is left open"},
		{"runc", []string{"1.2.8", "1.3.3", "1.4.0"}, "CVE-2025-31133, CVE-2025-52565 and CVE-2025-52881, what is masked or written in /proc at the start can be turned against the host"},
		{"Engine", []string{"20.10.18"}, "CVE-2022-36109, supplementary groups are not set up as they should be"},
	}
}

// risks says in one line what is known against these versions; "" = nothing.
func risks(versions map[string]string) string {
	var found []string
	for _, h := range holes() {
		if v := versions[h.component]; v != "" && open(v, h.closed) {
			found = append(found, fmt.Sprintf("%s %s is older than %s (%s)", strings.Replace(h.component, "Engine", "Docker", 1), v, strings.Join(h.closed, ", "), h.risk))
		}
	}
	return strings.Join(found, "; ")
}

// open reports whether version v is from before a hole was closed. A version that
// cannot be read is.
func open(v string, closed []string) bool {
	have, ok := numbers(v)
	if !ok {
		return true
	}
	for i, c := range closed {
		fixed, _ := numbers(c)
		// The line that v is of, or the last one for all that came later.
		if have[0] == fixed[0] && have[1] == fixed[1] || i == len(closed)-1 {
			return less(have, fixed)
		}
	}
	return true
}

// numbers is the first three numbers of a version; what follows is a distribution's.
func numbers(v string) (n [3]int, ok bool) {
	v = strings.TrimPrefix(v, "v")
	if end := strings.IndexFunc(v, func(r rune) bool { return r != '.' && (r < '0' || r > '9') }); end >= 0 {
		v = v[:end]
	}
	parts := strings.SplitN(v, ".", 4)
	for i := range min(3, len(parts)) {
		var err error
		if n[i], err = strconv.Atoi(parts[i]); err != nil {
			return n, false
		}
	}
	return n, len(parts) >= 2
}

func less(a, b [3]int) bool {
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}
