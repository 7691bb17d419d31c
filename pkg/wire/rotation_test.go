package wire

import (
	"reflect"
	"testing"

	"peercompute/pkg/mesh"
)

func TestRotationIsSignedByBothKeys(t *testing.T) {
	oldKey, old := testKey(t, 1)
	newKey, next := testKey(t, 2)
	other, third := testKey(t, 3)
	good := Rotation{Version: 1, Old: old, New: next, Seq: 1, Time: 5, Overlap: 1000}
	s, err := SealRotation(oldKey, newKey, good)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := s.Open(); err != nil || !reflect.DeepEqual(*r, good) {
		t.Fatalf("opened as %+v, %v", r, err)
	}
	for name, bad := range map[string]Step{"swapped": {s.ByNew, s.ByOld}, "one half": {s.ByOld, s.ByOld}, "none": {}} {
		if _, err := bad.Open(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if s, _ := SealRotation(other, newKey, good); s.ByOld != nil {
		if _, err := s.Open(); mesh.KindOf(err) != mesh.Forged {
			t.Errorf("old half by a third key: %v", err)
		}
	}
	if s, _ := SealRotation(oldKey, other, good); s.ByNew != nil {
		if _, err := s.Open(); mesh.KindOf(err) != mesh.Forged {
			t.Errorf("new half by a third key: %v", err)
		}
	}
	leaves(reflect.ValueOf(good), "Rotation", func(at []int, path string) {
		changed := good
		v := reflect.ValueOf(&changed).Elem().FieldByIndex(at)
		if v.Kind() == reflect.String {
			v.Set(reflect.ValueOf(third))
		} else {
			alter(t, v, path)
		}
		mixed, err := SealRotation(oldKey, newKey, changed)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := (Step{s.ByOld, mixed.ByNew}).Open(); err == nil {
			t.Errorf("%s differs between the halves: accepted", path)
		}
	})
}

func FuzzOpenRotation(f *testing.F) {
	oldKey, old := testKey(f, 1)
	newKey, next := testKey(f, 2)
	s, err := SealRotation(oldKey, newKey, Rotation{Version: 1, Old: old, New: next, Seq: 1, Time: 5})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.ByOld, s.ByNew)
	f.Fuzz(func(t *testing.T, a, b []byte) {
		if r, err := (Step{a, b}).Open(); err == nil && (r.Old != old || r.New != next) {
			t.Fatal("opened for others")
		}
	})
}
