// Package cgi speaks the server's half of CGI/1.1 (RFC 3875): the meta-variables
// of a request, and the parsing of what the program answers while it is still
// being written. It buffers heads, never bodies, and runs no program itself.
package cgi

import (
	"net"
	"net/http"
	"strconv"
	"strings"
)

// Software is the value of SERVER_SOFTWARE.
const Software = "peercompute"

// Env is the meta-variables of r (RFC 3875 §4.1) as KEY=VALUE. length is the size
// of the body that the program will find on its standard input, in bytes; a
// program cannot see its end otherwise.
func Env(r *http.Request, length int64) []string {
	host, port := hostPort(r)
	env := []string{
		"GATEWAY_INTERFACE=CGI/1.1",
		"SERVER_SOFTWARE=" + Software,
		"SERVER_NAME=" + host,
		"SERVER_PORT=" + port,
		"SERVER_PROTOCOL=" + r.Proto,
		"REQUEST_METHOD=" + r.Method,
		"REQUEST_URI=" + r.URL.RequestURI(),
		"SCRIPT_NAME=",
		"PATH_INFO=" + r.URL.Path,
		"QUERY_STRING=" + r.URL.RawQuery,
		"HTTP_HOST=" + r.Host,
	}
	client := client(r)
	env = append(env, "REMOTE_ADDR="+client, "REMOTE_HOST="+client)
	if secure(r) {
		env = append(env, "HTTPS=on")
	}
	if length > 0 {
		env = append(env, "CONTENT_LENGTH="+strconv.FormatInt(length, 10))
	}
	if t := r.Header.Get("Content-Type"); t != "" {
		env = append(env, "CONTENT_TYPE="+t)
	}
	for name, values := range r.Header {
		key, ok := metaName(name)
		if !ok {
			continue
		}
		sep := ", "
		if key == "HTTP_COOKIE" {
			sep = "; "
		}
		env = append(env, key+"="+strings.Join(values, sep))
	}
	return clean(env)
}

// Reserved reports whether a program's own environment may not set key, since it
// would pass for a fact about the request.
func Reserved(key string) bool {
	switch key {
	case "GATEWAY_INTERFACE", "SERVER_SOFTWARE", "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL", "REQUEST_METHOD",
		"REQUEST_URI", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REMOTE_ADDR", "REMOTE_HOST", "HTTPS",
		"CONTENT_LENGTH", "CONTENT_TYPE", "AUTH_TYPE", "REMOTE_USER", "REMOTE_IDENT", "PATH_TRANSLATED":
		return true
	}
	return strings.HasPrefix(key, "HTTP_")
}

// metaName turns a header's name into a meta-variable's. Proxy is left out: as
// HTTP_PROXY it would redirect the outgoing requests of many libraries. Names
// with an underscore are left out as well: they could pose as another header.
func metaName(name string) (string, bool) {
	switch name {
	case "Proxy", "Content-Type", "Content-Length", "Connection", "Keep-Alive", "Transfer-Encoding", "Te", "Trailer", "Upgrade", "Host":
		return "", false
	}
	b := []byte("HTTP_" + name)
	for i := len("HTTP_"); i < len(b); i++ {
		switch c := b[i]; {
		case c == '-':
			b[i] = '_'
		case c >= 'a' && c <= 'z':
			b[i] = c - 'a' + 'A'
		case c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		default:
			return "", false
		}
	}
	return string(b), true
}

// clean drops entries that no environment can hold: a NUL would end the value early.
func clean(env []string) []string {
	kept := env[:0]
	for _, kv := range env {
		if !strings.ContainsRune(kv, 0) {
			kept = append(kept, kv)
		}
	}
	return kept
}

// secure reports whether the browser's end of the connection was TLS, as the
// gateway says; nothing but peerd and its gateways can reach a workload.
func secure(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
}

func hostPort(r *http.Request) (host, port string) {
	port = "80"
	if secure(r) {
		port = "443"
	}
	host = r.Host
	if h, p, err := net.SplitHostPort(r.Host); err == nil {
		host, port = h, p
	}
	return strings.Trim(host, "[]"), port
}

// client is the address that the gateway saw: the first of X-Forwarded-For,
// which gateways build anew. Without one it is a local caller.
func client(r *http.Request) string {
	first, _, _ := strings.Cut(r.Header.Get("X-Forwarded-For"), ",")
	first = strings.TrimSpace(first)
	if net.ParseIP(first) == nil {
		return "127.0.0.1"
	}
	return first
}
