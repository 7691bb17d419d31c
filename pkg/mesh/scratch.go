package mesh

import (
	"path"
	"strings"
)

// MaxTmpfs bounds the directories that a spec makes writable.
const MaxTmpfs = 12

// ScratchDir is a directory of a container that may be a writable file system: an
// absolute path, cleaned, that is not the root, of the kernel, or an option of a mount.
func ScratchDir(dir string) (string, error) {
	clean := path.Clean(dir)
	bad := !path.IsAbs(clean) || clean == "/" || len(clean) > 256 || strings.ContainsAny(clean, ":,\x00\n")
	for _, kernel := range []string{"/proc", "/sys", "/dev"} {
		bad = bad || clean == kernel || strings.HasPrefix(clean, kernel+"/")
	}
	if bad {
		return "", Errorf(Invalid, "%q cannot be a writable directory", clip(dir, 80))
	}
	return clean, nil
}

func (s Spec) validateTmpfs(say func(string, ...any)) {
	if len(s.Tmpfs) > 0 && s.Runtime != Container {
		say("writable directories are of containers only")
	}
	if len(s.Tmpfs) > MaxTmpfs {
		say("more than %d writable directories", MaxTmpfs)
		return
	}
	for _, dir := range s.Tmpfs {
		if _, err := ScratchDir(dir); err != nil {
			say("%s", AsError(err).Msg)
		}
	}
}
