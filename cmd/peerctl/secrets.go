package main

import (
	"strings"

	"peercompute/pkg/mesh"
)

// secretsValue is the flag --secret NAME[:TARGET], which can be repeated.
type secretsValue struct{ to *[]mesh.SecretMount }

func (v *secretsValue) Set(s string) error {
	m, err := parseSecretMount(s)
	if err == nil {
		*v.to = append(*v.to, m)
	}
	return err
}

func (v *secretsValue) Type() string { return "NAME[:TARGET]" }

func (v *secretsValue) String() string {
	var all []string
	for _, m := range *v.to {
		all = append(all, m.Name)
	}
	return strings.Join(all, ",")
}

// parseSecretMount reads NAME[:TARGET]. A target may be given as its whole path.
func parseSecretMount(s string) (mesh.SecretMount, error) {
	name, target, _ := strings.Cut(s, ":")
	m := mesh.SecretMount{Name: name, Target: strings.TrimPrefix(target, mesh.SecretsDir+"/")}
	return m, m.Check()
}
