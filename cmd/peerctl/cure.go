package main

import (
	"path"
	"regexp"
	"strings"

	"peercompute/pkg/mesh"
)

// cureFor is what to change where a container's log says that it met one of its bounds.
func cureFor(log []string) string {
	for _, raw := range log {
		line := strings.ToLower(raw)
		says := func(parts ...string) bool {
			for _, p := range parts {
				if strings.Contains(line, p) {
					return true
				}
			}
			return false
		}
		switch {
		case says("read-only file system"):
			return "all but /tmp is read-only: deploy with --tmpfs " + parentOf(raw) + " (and so on for each directory that it writes to), or with a --volume there"
		case says("no space left on device"):
			return "its scratch space is full: deploy with more --disk; or a volume is, see: peerctl volume ls"
		case says("look up effective user id", "no matching entries in passwd", "no entry in passwd", "unknown userid", "cannot find name for user id", "getpwuid"):
			return "it looks up the name of its user, which is one that no image lists: start it through libnss_wrapper, as the official images of databases do"
		}
	}
	return ""
}

// parentOf is the directory of the path that a line names, if it can be writable; else DIR.
func parentOf(line string) string {
	named := regexp.MustCompile("(?:^|[\\s\"'`(=])(/[\\w.+/-]+)")
	if m := named.FindStringSubmatch(line); m != nil {
		dir := path.Dir(m[1])
		if dir == "/" {
			dir = m[1]
		}
		if clean, err := mesh.ScratchDir(dir); err == nil {
			return clean
		}
	}
	return "DIR"
}
