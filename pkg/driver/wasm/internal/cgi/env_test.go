package cgi

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

func TestEnv(t *testing.T) {
	r := httptest.NewRequest("POST", "http://app.example:8080/a%20b/c?x=1&y=%00", nil)
	r.Header = http.Header{
		"Content-Type":      {"text/plain"},
		"Accept":            {"a", "b"},
		"Cookie":            {"a=1", "b=2"},
		"Proxy":             {"http://evil/"},
		"X_Forwarded_For":   {"forged"},
		"X-Forwarded-For":   {"203.0.113.9, 10.0.0.1"},
		"X-Forwarded-Proto": {"https"},
		"X-Nul":             {"a\x00b"},
	}
	env := Env(r, 12)
	for _, want := range []string{
		"GATEWAY_INTERFACE=CGI/1.1", "REQUEST_METHOD=POST", "SERVER_NAME=app.example", "SERVER_PORT=8080", "PATH_INFO=/a b/c",
		"QUERY_STRING=x=1&y=%00", "REQUEST_URI=/a%20b/c?x=1&y=%00", "CONTENT_LENGTH=12", "CONTENT_TYPE=text/plain", "HTTP_ACCEPT=a, b",
		"HTTP_COOKIE=a=1; b=2", "REMOTE_ADDR=203.0.113.9", "HTTPS=on", "HTTP_HOST=app.example:8080", "SCRIPT_NAME=",
	} {
		if !slices.Contains(env, want) {
			t.Errorf("no %q in %q", want, env)
		}
	}
	for _, kv := range env {
		k, v, _ := strings.Cut(kv, "=")
		if k == "HTTP_PROXY" || v == "forged" || strings.Contains(kv, "\x00") || k == "HTTP_CONTENT_TYPE" {
			t.Errorf("%q came through", kv)
		}
		if !Reserved(k) {
			t.Errorf("a program could set %s itself", k)
		}
	}
}

func TestEnvWithoutGateway(t *testing.T) {
	r := httptest.NewRequest("GET", "/", nil)
	r.Host = "[::1]:80"
	env := Env(r, 0)
	for _, want := range []string{"SERVER_NAME=::1", "SERVER_PORT=80", "REMOTE_ADDR=127.0.0.1", "QUERY_STRING="} {
		if !slices.Contains(env, want) {
			t.Errorf("no %q in %q", want, env)
		}
	}
	if slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "CONTENT_LENGTH") || strings.HasPrefix(kv, "HTTPS") }) {
		t.Errorf("a length or TLS in %q", env)
	}
	if Reserved("PORT") {
		t.Error("PORT is reserved")
	}
}
