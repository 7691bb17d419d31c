package compose

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// subset is what a file may say: under each key what may be said there. A nil
// subset takes any value, "*" stands for any key.
type subset map[string]subset

// known is all of it. What a container has here in any case (a read-only root, no
// capability, no new privileges) may be said; anything else that is not listed would
// not hold and is refused.
var known = subset{
	"version": nil, "name": nil,
	"services": {"*": {
		"image": nil, "build": {"context": nil}, "command": nil, "environment": nil, "env_file": nil,
		"ports": nil, "expose": nil, "restart": nil, "networks": nil, "container_name": nil, "tmpfs": nil, "volumes": nil, "secrets": nil,
		"depends_on":  {"*": {"condition": nil, "required": nil, "restart": nil}},
		"healthcheck": {"test": nil, "interval": nil, "timeout": nil, "retries": nil, "disable": nil},
		"cpus":        nil, "mem_limit": nil, "pids_limit": nil, "read_only": nil, "cap_drop": nil, "security_opt": nil,
		"deploy": {"resources": {"limits": {"cpus": nil, "memory": nil, "pids": nil}}},
	}},
	"networks": {"*": {}},
	"secrets":  {"*": {"file": nil, "external": nil, "name": nil}},
	"volumes":  {"*": {"name": nil, "driver": nil, "driver_opts": {"size": nil}, "labels": nil}},
}

// unknown names what is said in v, at path, that s does not know.
func unknown(v any, s subset, path string) (bad []string) {
	m, ok := v.(map[string]any)
	if s == nil || !ok {
		return nil // a list or word where a mapping could be is for the schema to judge
	}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if strings.HasPrefix(key, "x-") {
			continue
		}
		at := strings.TrimPrefix(path+"."+key, ".")
		under, ok := s[key]
		if !ok {
			under, ok = s["*"]
		}
		if !ok {
			bad = append(bad, fmt.Sprintf("%s is not supported", at))
			continue
		}
		bad = append(bad, unknown(m[key], under, at)...)
	}
	return bad
}
