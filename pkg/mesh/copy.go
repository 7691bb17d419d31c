package mesh

import (
	"path"
	"strings"
	"unicode/utf8"
)

// MaxPath bounds a path inside a workload, in bytes.
const MaxPath = 4096

// ValidPath reports whether p can be a path inside a workload: absolute, and fit to be
// put on record.
func ValidPath(p string) error {
	switch {
	case len(p) > MaxPath:
		return Errorf(Invalid, "a path of %d bytes; the most is %d", len(p), MaxPath)
	case !path.IsAbs(p):
		return Errorf(Invalid, "%.80q is not an absolute path in the workload", p).WithHint("paths there begin with /")
	case !utf8.ValidString(p), strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return Errorf(Invalid, "%.80q has characters that no path may have here", p)
	}
	return nil
}
