package main

import (
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

// This file plays a node's cron jobs. One that is called late has missed a few.

func (n *fakeNode) cronRoutes(handle func(string, func(*http.Request) (any, error))) {
	at := func(r *http.Request) (int, error) {
		name := r.PathValue("name")
		i := slices.IndexFunc(n.crons, func(c control.Cron) bool { return c.Name == name })
		if i < 0 {
			return 0, mesh.Errorf(mesh.NotFound, "there is no cron job %q", name).WithHint("list them with: peerctl cron ls")
		}
		return i, nil
	}
	handle("GET /v1/crons", func(*http.Request) (any, error) { return n.crons, nil })
	handle("POST /v1/crons", func(r *http.Request) (any, error) {
		var c control.NewCron
		if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
			return nil, err
		}
		if c.Schedule == "sometimes" {
			return nil, mesh.Errorf(mesh.Invalid, "the schedule %q is not understood", c.Schedule).WithHint("a schedule is five fields")
		}
		made := control.Cron{Name: c.Name, Schedule: c.Schedule, Peer: c.Peer, Module: c.Spec.Digest, Made: n.began, Due: time.Date(2126, 1, 2, 4, 30, 0, 0, time.UTC)}
		if c.Name == "late" {
			made.Missed, made.Failure, made.Last, made.Job = 3, "bob does not answer", n.began, "m6muqvm6aaaaaaaa"
		}
		n.crons = append(n.crons, made)
		return made, nil
	})
	for verb, paused := range map[string]bool{"pause": true, "resume": false} {
		handle("POST /v1/crons/{name}/"+verb, func(r *http.Request) (any, error) {
			i, err := at(r)
			if err != nil {
				return nil, err
			}
			n.crons[i].Paused = paused
			return n.crons[i], nil
		})
	}
	handle("DELETE /v1/crons/{name}", func(r *http.Request) (any, error) {
		i, err := at(r)
		if err != nil {
			return nil, err
		}
		gone := n.crons[i]
		n.crons = slices.Delete(n.crons, i, i+1)
		return gone, nil
	})
}
