package main

import (
	"os"
	"testing"

	"peercompute/pkg/mesh"
)

func FuzzParseSignatures(f *testing.F) {
	image, err := os.ReadFile("../../pkg/mesh/testdata/image.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(image, true)
	f.Add([]byte("MEUCIF9e\n"), false)
	f.Add(append(image, image...), true)
	f.Fuzz(func(t *testing.T, data []byte, container bool) {
		r := mesh.Wasm
		if container {
			r = mesh.Container
		}
		got, err := parseSignatures(data, r)
		if err != nil {
			return
		}
		if len(got) == 0 || len(got) > mesh.MaxSignatures {
			t.Fatalf("%d signatures", len(got))
		}
		first := ""
		for _, s := range got {
			if named, err := s.Image(); container && (err != nil || first != "" && named != first) {
				t.Errorf("%q, %v beside %q", named, err, first)
			} else if container {
				first = named
			}
			if len(s.Value) == 0 {
				t.Error("a signature without a value")
			}
		}
	})
}
