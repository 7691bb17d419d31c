package wire

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"peercompute/pkg/mesh"
)

// jobBodies are what the vectors of jobs.txt that are good must open as.
func jobBodies() map[string]any {
	spec := mesh.Spec{Name: "a", Runtime: mesh.Wasm, Shape: mesh.Job, Resources: mesh.Resources{Fuel: 10_000_000_000}}
	seed, digest := bytes.Repeat([]byte{0x88}, 32), "sha256:"+strings.Repeat("66", 32)
	const id, at = mesh.WorkloadID("yowjhqm2z2p6pbnd"), 1767225600000
	view := JobView{
		ID: id, Name: "a", Module: digest, State: "done", Submitted: at, Started: at + 1, Ended: at + 2, Attempts: 1,
		Exit: &mesh.Exit{Code: 7, Fuel: 123456789, PeakMemory: 65536}, OutputSize: 1000, Receipt: []byte{1, 2}, Request: of(0x44),
	}
	return map[string]any{
		"run":             &Run{Spec: spec, Seed: seed, Whole: true, Repeat: true},
		"put-input":       &PutInput{Digest: digest, Size: 1000},
		"submit":          &Submit{Spec: spec, Seed: seed, Input: digest, InputSize: 1000, Key: "nightly-1"},
		"job-ref":         &JobRef{Job: id},
		"job-output":      &JobOutput{Job: id, Follow: true, Quiet: true},
		"job-view":        &view,
		"list-jobs-reply": &ListJobsReply{Jobs: []JobView{view}, Truncated: true},
		"statement-reply": &StatementReply{Statement: []byte{1, 2, 3}},
		"get-statement":   &GetStatement{},
	}
}

func TestJobVectors(t *testing.T) {
	want := jobBodies()
	seen := map[string]bool{}
	for _, v := range vectorsOf(t, "testdata/jobs.txt") {
		body, _, _ := strings.Cut(v.name, " ")
		if want[body] == nil {
			t.Fatalf("%s: no such body", v.name)
		}
		got := reflect.New(reflect.TypeOf(want[body]).Elem()).Interface()
		err := DecodeBody(v.data, got)
		if v.want != "ok" {
			if e := mesh.AsError(err); e == nil || fmt.Sprint(e.Kind, " ", e.Rule) != v.want {
				t.Errorf("%s: got %v, want %s", v.name, err, v.want)
			}
			continue
		}
		seen[body] = true
		if err != nil || !reflect.DeepEqual(got, want[body]) {
			t.Errorf("%s: read as %+v, %v; want %+v", v.name, got, err, want[body])
		}
		if again, err := Marshal(want[body]); err != nil || !bytes.Equal(again, v.data) {
			t.Errorf("%s: written as %x, %v; want %x", v.name, again, err, v.data)
		}
	}
	for body := range want {
		if !seen[body] {
			t.Errorf("no good vector of %s", body)
		}
	}
}

func goodStatement(t testing.TB) Statement {
	_, idA := testKey(t, 1)
	_, idB := testKey(t, 2)
	return Statement{Version: 1, Runner: idB, Asker: idA, Time: 1767225600000, ContainerSeconds: 86400}
}

func TestStatementVectors(t *testing.T) {
	keyB, _ := testKey(t, 2)
	checkVectors(t, "testdata/statements.txt", 14, OpenStatement, func(name string, data []byte, got *Statement) {
		want := goodStatement(t)
		if *got != want {
			t.Errorf("%s: opened as\n%+v, want\n%+v", name, *got, want)
		}
		if again, err := SealStatement(keyB, want); err != nil || !bytes.Equal(again, data) {
			t.Errorf("%s: sealing the same gives other bytes (%v):\n%x\n%x", name, err, again, data)
		}
	})
}

// Not one bit of a statement can be changed.
func TestStatementIsProtected(t *testing.T) {
	key, _ := testKey(t, 2)
	good, err := SealStatement(key, goodStatement(t))
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(good) * 8 {
		bad := bytes.Clone(good)
		bad[i/8] ^= 1 << (i % 8)
		if _, err := OpenStatement(bad); err == nil {
			t.Fatalf("bit %d flipped and accepted", i)
		}
	}
}

func FuzzOpenStatement(f *testing.F) {
	for _, v := range vectorsOf(f, "testdata/statements.txt") {
		f.Add(v.data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := OpenStatement(data)
		if err != nil {
			return
		}
		if _, err := Marshal(*s); err != nil {
			t.Fatalf("opened, but does not encode: %v", err)
		}
	})
}
