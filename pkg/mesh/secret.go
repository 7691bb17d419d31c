package mesh

import "strings"

// SecretMount is a secret as a container sees it: a file in SecretsDir that only its
// program may read. The value is nowhere in a spec.
type SecretMount struct {
	Name   string `json:"name" cbor:"1,keyasint"`                       // a DNS label, unique per owner on a peer
	Target string `json:"target,omitempty" cbor:"2,keyasint,omitempty"` // the file's name; empty = Name
}

// Bounds of secrets.
const (
	MaxSecret       = 64 << 10 // bytes of a value
	MaxSecrets      = 64       // of one owner on a peer
	MaxSecretMounts = 16       // of one workload
	SecretsDir      = "/run/secrets"
)

// File is the name of the secret's file.
func (m SecretMount) File() string {
	if m.Target != "" {
		return m.Target
	}
	return m.Name
}

// Check says why the secret cannot have this name or this file.
func (m SecretMount) Check() error {
	switch {
	case !ValidLabel(m.Name):
		return Errorf(Invalid, "%.60q cannot be a secret's name (a-z, 0-9, inner -, at most %d characters)", m.Name, MaxName)
	case !validFileName(m.File()):
		return Errorf(Invalid, "the secret %s cannot be a file called %.60q", m.Name, m.File())
	}
	return nil
}

// ValidSecret reports whether a secret can have this name and value.
func ValidSecret(name string, value []byte) error {
	switch {
	case !ValidLabel(name):
		return Errorf(Invalid, "%.60q cannot be a secret's name (a-z, 0-9, inner -, at most %d characters)", name, MaxName)
	case len(value) == 0:
		return Errorf(Invalid, "the secret %s is empty", name)
	case len(value) > MaxSecret:
		return Errorf(TooLarge, "the secret %s has over %d KiB", name, MaxSecret>>10).WithRule("secret.size")
	}
	return nil
}

func (s Spec) validateSecrets(say func(string, ...any)) {
	if len(s.Secrets) == 0 {
		return
	}
	if s.Runtime != Container {
		say("only a container gets secrets; a WASM guest gets none yet")
	}
	if len(s.Secrets) > MaxSecretMounts {
		say("more than %d secrets", MaxSecretMounts)
		return
	}
	for _, v := range s.Volumes {
		if within(v.Target, SecretsDir) || within(SecretsDir, v.Target) {
			say("volume %s lies where the secrets are, %s", v.Name, SecretsDir)
		}
	}
	files := map[string]bool{}
	for _, m := range s.Secrets {
		if err := m.Check(); err != nil {
			say("%s", err)
		}
		if files[m.File()] {
			say("two secrets are to be the file %.60s", m.File())
		}
		files[m.File()] = true
	}
}

func validFileName(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == ""
}
