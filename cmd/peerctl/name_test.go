package main

import (
	"strings"
	"testing"

	"peercompute/pkg/mesh"
)

func TestImageName(t *testing.T) {
	for image, want := range map[string]string{
		"nginx": "nginx", "nginx:1.27": "nginx", "ghcr.io/acme/Web_App:1.2": "web-app",
		"localhost:5000/tool": "tool", "nginx@sha256:" + strings.Repeat("a", 64): "nginx",
		"a/b:1@sha256:" + strings.Repeat("a", 64): "b", "sha256:0123": "sha256", "": "app", "___": "app",
		"x/" + strings.Repeat("y", 60): strings.Repeat("y", mesh.MaxName),
	} {
		if got := imageName(image); got != want {
			t.Errorf("imageName(%q) = %q, want %q", image, got, want)
		}
	}
}

func TestModuleName(t *testing.T) {
	for file, want := range map[string]string{
		"hello.wasm": "hello", "My App.WASM": "my-app", ".wasm": "app", "a.b.wasm": "a-b", "noext": "noext",
		"-x-.wasm": "x", "straße.wasm": "stra-e", "日本.wasm": "app",
		strings.Repeat("z", 39) + "--tail.wasm": strings.Repeat("z", 39),
	} {
		if got := moduleName(file); got != want {
			t.Errorf("moduleName(%q) = %q, want %q", file, got, want)
		}
	}
}

func FuzzNames(f *testing.F) {
	f.Add("ghcr.io/acme/Web_App:1.2")
	f.Fuzz(func(t *testing.T, s string) {
		for _, name := range []string{imageName(s), moduleName(s)} {
			if !mesh.ValidLabel(name) {
				t.Errorf("%q became %q, which is no label", s, name)
			}
		}
	})
}
