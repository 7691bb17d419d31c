package compose

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// subset is what a file may say: under each key what may be said there. A nil
// subset takes any value, "*" stands for any name.
type subset map[string]subset

// known is all of it. What a container has here in any case (a read-only root, no
// capability, no new privileges) may be said; anything else that is not listed would
// not hold and is refused.
var known = subset{
	"version": nil, "name": nil,
	"services": {"*": {
		"image": nil, "command": nil, "entrypoint": nil, "working_dir": nil, "environment": nil, "env_file": nil,
		"build": {"context": nil, "dockerfile": nil, "dockerfile_inline": nil, "target": nil, "args": nil},
		"ports": nil, "expose": nil, "restart": nil, "container_name": nil, "tmpfs": nil, "volumes": nil, "secrets": nil,
		"profiles": nil, "extends": {"service": nil}, "links": nil, "pull_policy": nil, "scale": nil, "develop": nil, "attach": nil,
		"networks":    {"*": {"aliases": nil, "priority": nil}},
		"depends_on":  {"*": {"condition": nil, "required": nil, "restart": nil}},
		"healthcheck": {"test": nil, "interval": nil, "timeout": nil, "retries": nil, "start_period": nil, "start_interval": nil, "disable": nil},
		"cpus":        nil, "mem_limit": nil, "mem_reservation": nil, "pids_limit": nil, "shm_size": nil,
		"read_only": nil, "cap_drop": nil, "security_opt": nil, "stop_grace_period": nil, "stop_signal": nil,
		"labels": nil, "logging": {"driver": nil, "options": nil}, "init": nil, "hostname": nil,
		"deploy": {
			"replicas": nil, "restart_policy": {"condition": nil},
			"resources": {"limits": {"cpus": nil, "memory": nil, "pids": nil}, "reservations": {"cpus": nil, "memory": nil}},
		},
	}},
	"networks": {"*": {"name": nil, "external": nil, "driver": nil, "internal": nil, "attachable": nil, "labels": nil}},
	"secrets":  {"*": {"file": nil, "external": nil, "name": nil}},
	"volumes":  {"*": {"name": nil, "external": nil, "driver": nil, "driver_opts": {"size": nil}, "labels": nil}},
}

const (
	noPrivilege = "no container here has a privilege, a capability or a device"
	noNamespace = "a container shares no namespace with its host or another"
	oneFile     = "docker compose config prints all as one file"
	asImage     = `copy the file into the image: build: {context: ., dockerfile_inline: "FROM IMAGE\nCOPY FILE /PATH"}`
)

// why says of some keys why they cannot be had, or what to do instead.
var why = map[string]string{
	"privileged": noPrivilege, "cap_add": noPrivilege, "devices": noPrivilege, "device_cgroup_rules": noPrivilege, "gpus": noPrivilege,
	"network_mode": noNamespace, "pid": noNamespace, "ipc": noNamespace, "uts": noNamespace, "userns_mode": noNamespace, "cgroup": noNamespace, "cgroup_parent": noNamespace,
	"user": "each workload runs as a user of its own, which is never root", "group_add": "each workload runs as a group of its own",
	"configs": asImage, "include": oneFile, "file": oneFile,
	"volumes_from": "name a volume in each service", "sysctls": "the peer sets them", "ulimits": "the peer sets them: 16384 open files",
	"extra_hosts": "a service finds the others of its networks by name; for more: x-egress", "dns": "the peer answers what x-egress allows",
	"ipam": "the peer gives out the addresses", "ipv4_address": "the peer gives out the addresses; use the service's name", "enable_ipv6": "networks have IPv4 only",
	"stdin_open": "look inside with: peerctl exec -it", "tty": "look inside with: peerctl exec -it",
	"platform": "the image is to be for the peer's platform", "memswap_limit": "no container has swap",
	"environment": "put the value into a file",
}

// unknown names what is said in v, at path, that s does not know.
func unknown(v any, s subset, path string) (bad []string) {
	m, ok := v.(map[string]any)
	if s == nil || !ok {
		return nil // a list or word where a mapping could be is for the schema to judge
	}
	any, names := s["*"]
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if strings.HasPrefix(key, "x-") && !names {
			continue
		}
		at := strings.TrimPrefix(path+"."+key, ".")
		under, ok := s[key]
		if names {
			under, ok = any, true
		}
		switch {
		case ok:
			bad = append(bad, unknown(m[key], under, at)...)
		case said(m[key]):
			if bad = append(bad, at+" is not supported"); why[key] != "" {
				bad[len(bad)-1] += fmt.Sprintf(" (%s)", why[key])
			}
		}
	}
	return bad
}

// said reports whether a value asks for anything.
func said(v any) bool {
	switch v := v.(type) {
	case bool:
		return v
	case []any:
		return len(v) > 0
	}
	return true
}
