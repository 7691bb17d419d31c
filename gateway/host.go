package gateway

import "strings"

// maxHost bounds a Host header: the longest DNS name, a dot, a colon, a port.
const maxHost = 253 + 1 + 6

// hostKind says what a Host header asks for.
type hostKind int

const (
	hostInvalid hostKind = iota // not the form of a host
	hostForeign                 // a host, but none of ours
	hostApex                    // the gateway's own domain
	hostLabel                   // one label under the domain
)

// parseHost splits a Host header against the gateway's domain, which is in lower
// case and has no trailing dot. The match is exact: one label, the domain, and
// an optional port. The label comes back in lower case.
func parseHost(host, domain string) (label string, kind hostKind) {
	if host == "" || len(host) > maxHost {
		return "", hostInvalid
	}
	name, ok := stripPort(host)
	if !ok {
		return "", hostInvalid
	}
	name = strings.TrimSuffix(name, ".")
	upper := false
	for i := range len(name) {
		switch c := name[i]; {
		case 'A' <= c && c <= 'Z':
			upper = true
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '.':
		case c == '_', c == ':', c == '[', c == ']': // an address, or a name that DNS would never give us
			return "", hostForeign
		default:
			return "", hostInvalid
		}
	}
	if upper {
		name = strings.ToLower(name)
	}
	if name == domain {
		return "", hostApex
	}
	label, ok = strings.CutSuffix(name, domain)
	if !ok || len(label) < 2 || label[len(label)-1] != '.' {
		return "", hostForeign
	}
	label = label[:len(label)-1]
	if len(label) > 63 || strings.IndexByte(label, '.') >= 0 || label[0] == '-' || label[len(label)-1] == '-' {
		return "", hostForeign
	}
	return label, hostLabel
}

// stripPort cuts an optional numeric port. It fails on a port that is no number.
func stripPort(host string) (string, bool) {
	i := strings.LastIndexByte(host, ':')
	if i < 0 || host[len(host)-1] == ']' {
		return host, true
	}
	port := host[i+1:]
	if len(port) > 5 {
		return "", false
	}
	for j := range len(port) {
		if port[j] < '0' || port[j] > '9' {
			return "", false
		}
	}
	return host[:i], i > 0
}

// validDomain reports whether s can be a gateway's domain: lower-case labels
// joined by dots, no port and no trailing dot.
func validDomain(s string) bool {
	if s == "" || len(s) > 253-64 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return true
}
