package compose

import (
	"path/filepath"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// Build is how an image is built, on the machine of whoever deploys.
type Build struct {
	Dir        string            // absolute
	Dockerfile string            // its path in Dir
	Inline     string            // the text of the Dockerfile instead
	Target     string            // stage; empty = the last
	Args       map[string]string // of the build
}

func build(c types.BuildConfig, say func(string, ...any)) *Build {
	b := &Build{Dir: c.Context, Dockerfile: c.Dockerfile, Inline: c.DockerfileInline, Target: c.Target}
	if strings.Contains(c.Context, "://") || strings.HasPrefix(c.Context, "git@") {
		say("the build context %s is not a directory of this machine", c.Context)
	}
	if rel, err := filepath.Rel(b.Dir, b.Dockerfile); err == nil && filepath.IsAbs(b.Dockerfile) {
		b.Dockerfile = rel
	}
	if b.Dockerfile != "" && !filepath.IsLocal(b.Dockerfile) {
		say("the Dockerfile %s lies outside the build context", c.Dockerfile)
	}
	for k, v := range c.Args {
		if v != nil {
			if b.Args == nil {
				b.Args = map[string]string{}
			}
			b.Args[k] = *v
		}
	}
	return b
}
