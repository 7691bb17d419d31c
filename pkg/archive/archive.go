// Package archive turns trees of files into tar archives and back, where whoever made
// the archive or the tree may be hostile: nothing is read or written outside the
// directory that it was given, and no device, privilege or owner travels.
package archive

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// Bounds of any archive here.
const (
	MaxName    = 4096    // bytes of a name
	MaxDepth   = 128     // directories inside each other
	MaxEntries = 1 << 20 // files, directories and links
)

// Report is what was copied.
type Report struct {
	Files   int64  `json:"files"` // directories and links too
	Bytes   int64  `json:"bytes"` // of their contents
	Skipped int64  `json:"skipped,omitempty"`
	First   string `json:"first,omitempty"` // of those skipped, and why
}

func (r *Report) skip(name, why string) {
	if r.Skipped++; r.Skipped == 1 {
		r.First = fmt.Sprintf("%.200s (%s)", name, why)
	}
}

// Name is the name of an entry below the directory that an archive is unpacked into.
// as stands in place of its first element, unless empty; whole reports whether that
// element is "." and so nameless.
func (u Unpack) name(raw string) (string, error) {
	if len(raw) > MaxName || strings.ContainsRune(raw, 0) {
		return "", fmt.Errorf("%w: a name in it is too long or holds a zero byte", ErrMalformed)
	}
	bare := raw == "." || strings.HasPrefix(raw, "./")
	name := path.Clean(raw)
	if !inside(name) || !u.Whole && !fs.ValidPath(name) {
		return "", fmt.Errorf("%w: it names %.80q, which is not below the directory that it is for", ErrMalformed, raw)
	}
	if strings.Count(name, "/") >= MaxDepth {
		return "", fmt.Errorf("%w: it has over %d directories inside each other", ErrTooLarge, MaxDepth)
	}
	switch {
	case u.As == "":
		return name, nil
	case bare:
		return path.Join(u.As, name), nil
	}
	_, rest, _ := strings.Cut(name, "/")
	return path.Join(u.As, rest), nil
}

// inside reports whether a clean path stays below where it begins.
func inside(name string) bool {
	return name != ".." && !strings.HasPrefix(name, "../") && !path.IsAbs(name)
}
