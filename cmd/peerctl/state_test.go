package main

import (
	"strings"
	"testing"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

func TestStateOf(t *testing.T) {
	for want, status := range map[string]mesh.Status{
		"exited (3)":                            {State: mesh.Exited, ExitCode: 3, Reason: "exited with code 3"},
		"killed: memory 64 MiB":                 {State: mesh.Exited, ExitCode: 137, Reason: "killed: memory 64 MiB"},
		"killed: memory 64 MiB; starting again": {State: mesh.Pending, Reason: "killed: memory 64 MiB; starting again"},
		"running":                               {State: mesh.Running, Reason: "killed: memory 64 MiB"},
		"running: writes too much":              {State: mesh.Running, Held: "writes too much", Health: mesh.HealthOK},
		"killed: " + strings.Repeat("x", maxReason-9) + "…": {State: mesh.Failed, Reason: "killed: " + strings.Repeat("x", 900)},
	} {
		if got := stateOf(control.Workload{State: status.State, Status: status}); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
