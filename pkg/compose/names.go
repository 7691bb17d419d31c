package compose

import (
	"fmt"
	"strings"

	"peercompute/pkg/mesh"
)

// label makes a name one that holds here.
func label(s string) string {
	s = strings.ToLower(strings.NewReplacer("_", "-", ".", "-").Replace(s))
	if len(s) > mesh.MaxName {
		s = s[:mesh.MaxName]
	}
	return strings.Trim(s, "-")
}

// within is the name of something that belongs to a project. Where both are too long
// for a label the project's is cut.
func within(project, name string) string {
	name = label(name)
	if most := mesh.MaxName - len(name) - 1; len(project) > most {
		project = strings.TrimRight(project[:max(most, 0)], "-")
	}
	return strings.Trim(project+"-"+name, "-")
}

// taken notes what each thing of one kind is called here, and complains of two that
// would be one.
type taken map[string]string

func (t taken) name(kind, key, as string) (bad []string) {
	if other, ok := t[as]; ok {
		return []string{fmt.Sprintf("%s %s and %s would both be called %s here: give one another name", kind, other, key, as)}
	}
	t[as] = key
	return nil
}
