package gateway

import (
	"net/http"
	"net/netip"
	"net/textproto"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// hopByHop reports whether a header, in canonical form, concerns one connection
// only and is not passed on.
func hopByHop(k string) bool {
	switch k {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings":
		return true
	}
	return false
}

// ours reports whether a request header is one that the gateway alone may say,
// or that would let a client speak with the gateway's voice.
func ours(k string) bool {
	switch k {
	case "Host", "Content-Length", "Forwarded", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "True-Client-Ip",
		"Cf-Connecting-Ip", "Fly-Client-Ip", "Client-Ip", "X-Original-Url", "X-Rewrite-Url", "X-Original-Host", "X-Host",
		"Proxy": // a CGI workload would read it as HTTP_PROXY
		return true
	}
	return strings.HasPrefix(k, "X-Forwarded")
}

// listed collects the header names that Connection declares hop-by-hop.
func listed(connection []string) map[string]bool {
	if len(connection) == 0 {
		return nil
	}
	var out map[string]bool
	for _, v := range connection {
		for name := range strings.SplitSeq(v, ",") {
			name = textproto.TrimString(name)
			if name == "" || strings.EqualFold(name, "keep-alive") || strings.EqualFold(name, "close") {
				continue
			}
			if out == nil {
				out = map[string]bool{}
			}
			out[textproto.CanonicalMIMEHeaderKey(name)] = true
		}
	}
	return out
}

// appendRequestHeaders writes the client's headers that pass through.
func appendRequestHeaders(b []byte, h http.Header) []byte {
	drop := listed(h["Connection"])
	for k, vv := range h {
		// To CGI and WSGI workloads a_b and a-b are the same name, so an
		// underscore could smuggle a header past the rules below.
		if hopByHop(k) || ours(k) || drop[k] || strings.IndexByte(k, '_') >= 0 {
			continue
		}
		for _, v := range vv {
			if strings.ContainsAny(v, "\r\n\x00") {
				continue
			}
			b = append(b, k...)
			b = append(b, ": "...)
			b = append(b, v...)
			b = append(b, "\r\n"...)
		}
	}
	if httpguts.HeaderValuesContainsToken(h["Te"], "trailers") {
		b = append(b, "Te: trailers\r\n"...)
	}
	return b
}

// appendForwarded writes who asked, for what, and how, as the gateway saw it.
func appendForwarded(b []byte, client netip.Addr, host string, secure bool) []byte {
	proto := "http"
	if secure {
		proto = "https"
	}
	b = append(b, "X-Forwarded-For: "...)
	b = client.AppendTo(b)
	b = append(b, "\r\nX-Forwarded-Host: "...)
	b = append(b, host...)
	b = append(b, "\r\nX-Forwarded-Proto: "...)
	b = append(b, proto...)
	b = append(b, "\r\nForwarded: for="...)
	if client.Is4() {
		b = client.AppendTo(b)
	} else {
		b = append(b, `"[`...)
		b = client.AppendTo(b)
		b = append(b, `]"`...)
	}
	b = append(b, `;host="`...)
	b = append(b, host...)
	b = append(b, `";proto=`...)
	b = append(b, proto...)
	return append(b, "\r\n"...)
}

// copyResponseHeaders moves the workload's headers that pass through into dst.
// host is the request's name without port: cookies may not reach wider.
func copyResponseHeaders(dst, src http.Header, host string) {
	drop := listed(src["Connection"])
	for k, vv := range src {
		switch {
		case hopByHop(k) || drop[k]:
			continue
		case k == "Set-Cookie":
			for i, v := range vv {
				vv[i] = confineCookie(v, host)
			}
		}
		dst[k] = vv
	}
	if _, ok := src["Content-Type"]; !ok {
		dst["Content-Type"] = nil // what the workload left unsaid is not ours to guess
	}
}

// confineCookie removes a Domain attribute that reaches beyond host, and with it
// the names of other publishers under the same domain.
func confineCookie(cookie, host string) string {
	if !strings.Contains(strings.ToLower(cookie), "domain") {
		return cookie
	}
	parts := strings.Split(cookie, ";")
	kept := parts[:1]
	for _, part := range parts[1:] {
		name, value, _ := strings.Cut(part, "=")
		if strings.EqualFold(strings.Trim(name, " \t"), "domain") {
			domain := strings.TrimPrefix(strings.ToLower(strings.Trim(value, " \t")), ".")
			if domain != host {
				continue
			}
		}
		kept = append(kept, part)
	}
	return strings.Join(kept, ";")
}
