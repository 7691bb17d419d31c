package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"peercompute/pkg/mesh"
	"peercompute/pkg/trust"
)

// meetConfig is how strangers may find this machine; all of it is off by default.
type meetConfig struct {
	Discover bool   `toml:"discover"`
	Name     string `toml:"name"`
	Knock    string `toml:"knock"`
}

// flags adds the flags of the same names. What they set wins over the file.
func (m *meetConfig) flags(f *pflag.FlagSet) {
	f.BoolVar(&m.Discover, "discover", false, "announce this machine on the local network (multicast DNS)")
	f.StringVar(&m.Name, "name", "", "what this machine calls itself there (default: its host name)")
	f.StringVar(&m.Knock, "knock", "", "let strangers ask for trust, this long from the start, such as 1h")
}

// override takes over what was given as a flag.
func (m *meetConfig) override(f *pflag.FlagSet, given meetConfig) {
	if f.Changed("discover") {
		m.Discover = given.Discover
	}
	if f.Changed("name") {
		m.Name = given.Name
	}
	if f.Changed("knock") {
		m.Knock = given.Knock
	}
}

func (m meetConfig) problems() (bad []string) {
	if m.Name != "" && !mesh.ValidLabel(m.Name) {
		bad = append(bad, fmt.Sprintf("name: %q is not a-z, 0-9 and inner -, of at most %d characters", m.Name, mesh.MaxName))
	}
	if d, err := m.knock(); err != nil || d < 0 || d > trust.MaxKnocking {
		bad = append(bad, fmt.Sprintf("knock: %q is not a time of at most %s, such as \"1h\"", m.Knock, trust.MaxKnocking))
	}
	return bad
}

func (m meetConfig) knock() (time.Duration, error) {
	if m.Knock == "" {
		return 0, nil
	}
	return time.ParseDuration(m.Knock)
}

// announce is the name to announce; empty = stay silent.
func (m meetConfig) announce() string {
	if !m.Discover {
		return ""
	}
	name := m.Name
	if name == "" {
		host, _ := os.Hostname()
		name, _, _ = strings.Cut(strings.ToLower(host), ".")
	}
	if !mesh.ValidLabel(name) {
		name = "peer"
	}
	return name
}
