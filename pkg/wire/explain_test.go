package wire

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"peercompute/pkg/mesh"
)

func TestExplainedVectors(t *testing.T) {
	want := Explained{
		Checks: []mesh.Check{
			{Rule: "trust", Pass: true},
			{Rule: "grant.memory", Want: "2 GiB", Held: "0 B", Limit: "1 GiB", Reason: "no", Ask: "--memory 2GiB"},
		},
		Spec: mesh.Spec{Name: "a", Runtime: mesh.Wasm},
	}
	vectors := vectorsOf(t, "testdata/explained.txt")
	if len(vectors) < 6 {
		t.Fatalf("only %d vectors", len(vectors))
	}
	for _, v := range vectors {
		var got Explained
		err := DecodeBody(v.data, &got)
		if v.want == "ok" {
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: read as %+v, %v; want %+v", v.name, got, err, want)
			}
			if again, err := Marshal(want); err != nil || !bytes.Equal(again, v.data) {
				t.Errorf("%s: written as %x, %v; want %x", v.name, again, err, v.data)
			}
			continue
		}
		kind, rule, _ := strings.Cut(v.want, " ")
		if e := mesh.AsError(err); e == nil || e.Kind.String() != kind || e.Rule != rule {
			t.Errorf("%s: got %v, want %s by rule %s", v.name, err, kind, rule)
		}
	}
}
