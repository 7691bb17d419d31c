package wire

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/mesh"
)

// bodyVectors is what the good vectors of testdata/bodies.txt mean; those that are
// refused name one of them first.
func bodyVectors() map[string]any {
	const id = "abcdefghijklmnop"
	const at = 1767225600000
	digest := "sha256:" + strings.Repeat("ab", 32)
	return map[string]any{
		"volumes": Volumes{},
		"volumes reply": VolumesReply{Volumes: []Volume{
			{ID: id, Name: "data", Size: 1 << 30, State: "ready", Created: at, Used: []string{"web"}},
			{ID: "qrstuvwxyz234567", Name: "old", Size: 16 << 20, State: "removing", Created: at + 1},
		}},
		"volume ref":     VolumeRef{Volume: id},
		"restore volume": RestoreVolume{Name: "data", Size: 2 << 30},
		"archive":        Archive{Digest: digest, Size: 70000, Entries: 12, Bytes: 4 << 30, Left: 1},
		"archive, empty": Archive{Digest: digest},
		"set secret":     SetSecret{Name: "db", Sealed: []byte{1, 2, 3, 255}},
		"remove secret":  RemoveSecret{Name: "db"},
		"secrets":        Secrets{},
		"secrets reply":  SecretsReply{Secrets: []KeptSecret{{Name: "db", Set: at, Used: []string{"api", "web"}}, {Name: "key", Set: at + 1}}},
		"copy out":       CopyOut{Workload: id, Path: "/tmp/report.csv"},
		"copy in":        CopyIn{Workload: id, Path: "/tmp/new", Tree: true},
		"copied":         Copied{Files: 3, Bytes: 4096, Skipped: 1, First: "private"},
		"spec, keys from 14": mesh.Spec{
			Name: "a", Runtime: mesh.Container, Clock: mesh.ClockWall, Hosts: []string{"db:5432"}, Concurrency: 4, Idle: time.Minute, FuelDay: 1e13,
			Network: "shop", Volumes: []mesh.VolumeMount{{Name: "data", Target: "/var/lib/app", ReadOnly: true, Size: 4 << 30}},
			Health: &mesh.Health{
				Check: mesh.CheckHTTP, Path: "/healthz", Port: 8080, Command: []string{"ok"}, Interval: 10 * time.Second, Timeout: 2 * time.Second, Retries: 3,
			},
			Secrets: []mesh.SecretMount{{Name: "db", Target: "password"}}, Signatures: []mesh.Signature{{Text: []byte("{}"), Value: []byte{1, 2}}},
			Tmpfs: []string{"/run"}, Entrypoint: []string{"/run"}, WorkDir: "/srv", Aliases: []string{"db"}, Networks: []string{"back"}, Project: "shop",
		},
	}
}

func TestBodyVectors(t *testing.T) {
	wants := bodyVectors()
	seen := map[string]bool{}
	for _, v := range vectorsOf(t, "testdata/bodies.txt") {
		want, ok := wants[v.name]
		if v.want != "ok" { // of the kind that its name begins with
			for name, w := range wants {
				if of, _, _ := strings.Cut(name, ","); strings.HasPrefix(v.name, of+",") {
					want, ok = w, true
				}
			}
		}
		if !ok {
			t.Errorf("%s: not known", v.name)
			continue
		}
		got := reflect.New(reflect.TypeOf(want))
		err := DecodeBody(v.data, got.Interface())
		if v.want == "ok" {
			seen[v.name] = true
			if err != nil || !reflect.DeepEqual(got.Elem().Interface(), want) {
				t.Errorf("%s: read as %+v, %v; want %+v", v.name, got.Elem(), err, want)
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
	if len(seen) != len(wants) {
		t.Errorf("%d kinds of body have a good vector, want %d", len(seen), len(wants))
	}
}
