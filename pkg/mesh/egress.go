package mesh

import "strings"

// validateEgress says what is wrong with what s wants to connect to.
func (s Spec) validateEgress(say func(string, ...any)) {
	switch s.Egress {
	case "", EgressNone, EgressAllow:
	case EgressInternet:
		if s.Runtime != Container {
			say("egress internet is of containers only: a WASM guest lists its hosts")
		}
	default:
		say("egress %q is not none, internet or allow", clip(string(s.Egress), 80))
	}
	if len(s.Hosts) > MaxHosts {
		say("more than %d hosts", MaxHosts)
	}
	for _, h := range s.Hosts {
		host, err := ParseHost(h)
		switch {
		case err != nil:
			say("%s", AsError(err).Msg)
		case s.Runtime == Container && host.Addr.Is6():
			say("%s cannot be reached from a container, which has no IPv6: list it by its name", host)
		}
	}
	if (s.Egress == EgressAllow) != (len(s.Hosts) > 0) {
		say("egress allow and a list of hosts go together")
	}
	if s.Network != "" && !ValidLabel(s.Network) {
		say("network %q is not a DNS label of at most %d characters", clip(s.Network, 80), MaxName)
	}
	if s.Network != "" && s.Runtime != Container {
		say("a network is of containers only")
	}
}

// ParseEgress reads what a person types: none, internet, or allow:HOST:PORT,…
func ParseEgress(text string) (Egress, []string, error) {
	kind, list, listed := strings.Cut(text, ":")
	switch e := Egress(kind); {
	case !listed && (e == EgressNone || e == EgressInternet):
		return e, nil, nil
	case listed && e == EgressAllow:
		var hosts []string
		for entry := range strings.SplitSeq(list, ",") {
			h, err := ParseHost(strings.TrimSpace(entry))
			if err != nil {
				return "", nil, err
			}
			hosts = append(hosts, h.String())
		}
		return e, hosts, nil
	}
	return "", nil, Errorf(Invalid, "%q is not none, internet or allow:HOST:PORT,…", clip(text, 80))
}
