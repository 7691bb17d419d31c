package wasm

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"peercompute/pkg/mesh"
)

// What a request costs, from the connection that peerd hands over to the end of
// the answer, with a fresh instance each.
func BenchmarkRequest(b *testing.B) {
	for _, tc := range []struct {
		name   string
		module func(*rig) string
	}{
		{"small", func(r *rig) string { return r.shelf.bytes(sayModule(plain + "hello")) }},
		{"probe", func(r *rig) string { return r.shelf.probe() }},
		{"hello", func(r *rig) string { return r.shelf.put(guests.build(b, helloGuest)) }},
	} {
		b.Run(tc.name, func(b *testing.B) {
			r := newGoRig(b, Limits{})
			task := r.start(r.workload(tc.module(r), mesh.HTTP, nil))
			c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return task.Dial(ctx) }}}
			defer c.CloseIdleConnections()
			b.ResetTimer()
			for b.Loop() {
				res, err := c.Get("http://app/")
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != 200 {
					b.Fatal(res.StatusCode, err)
				}
				res.Body.Close()
			}
		})
	}
}

// What a job costs in a worker that has run it before.
func BenchmarkJob(b *testing.B) {
	r := newGoRig(b, Limits{})
	w := r.workload(r.shelf.bytes(sayModule("hello")), mesh.Job, nil)
	for b.Loop() {
		if _, err := r.Run(b.Context(), w, strings.NewReader(""), io.Discard, io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDial(b *testing.B) {
	r := newGoRig(b, Limits{})
	task := r.start(r.workload(r.shelf.bytes(sayModule(plain)), mesh.HTTP, nil))
	for b.Loop() {
		c, err := task.Dial(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}
