package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

// bobsLife and gatesLife are how the played peers are: one well and near, one
// relayed and with a wrong clock.
func bobsLife() control.Liveness {
	return control.Liveness{
		State: "alive", Connected: true, Seen: time.Now().Add(-4500 * time.Millisecond), RTT: 1300 * time.Microsecond,
		Version: "v0.0.0-fake", Free: &control.Free{Workloads: 3, MilliCPU: 1500, Memory: 2 << 30},
	}
}

func gatesLife() control.Liveness {
	return control.Liveness{
		State: "alive", Connected: true, Relayed: true, Seen: time.Now().Add(-90 * time.Second), RTT: 84 * time.Millisecond, ClockOff: 3 * time.Minute,
	}
}

func playedAlarms() []control.Alarm {
	return []control.Alarm{{
		ID: 3, Kind: "peer.rolled-back", Peer: "bob", Text: "bob shows logs that have lost what it showed before", Hint: "ask its owner",
		First: time.Now().Add(-time.Hour), Last: time.Now().Add(-time.Hour), Count: 2,
	}}
}

func (n *fakeNode) identityRoutes(handle func(string, func(*http.Request) (any, error))) {
	handle("GET /v1/alarms", func(*http.Request) (any, error) { return n.alarms, nil })
	handle("DELETE /v1/alarms/{id}", func(r *http.Request) (any, error) {
		id, _ := strconv.ParseUint(r.PathValue("id"), 10, 64)
		at := slices.IndexFunc(n.alarms, func(a control.Alarm) bool { return a.ID == id })
		if at < 0 {
			return nil, mesh.Errorf(mesh.NotFound, "there is no alarm %s", r.PathValue("id")).WithHint("list them with: peerctl alarms")
		}
		a := n.alarms[at]
		n.alarms = slices.Delete(n.alarms, at, at+1)
		return a, nil
	})
	handle("POST /v1/identity/rotate", func(r *http.Request) (any, error) {
		var in control.Rotate
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			return nil, err
		}
		if !in.Compromised && in.Overlap < time.Minute {
			return nil, mesh.Errorf(mesh.Invalid, "both keys count for %s; from 1m to 24h is possible", in.Overlap)
		}
		old := n.whoami().ID
		n.rotated = playedKey(old)
		return control.Rotation{
			Old: old, New: n.rotated, Compromised: in.Compromised, Told: []string{"bob"}, Waiting: []control.Untold{{Peer: "gate", Reason: "it is away"}},
		}, nil
	})
}

// playedKey is another key than old, the same each time.
func playedKey(old mesh.PeerID) mesh.PeerID {
	seed := sha256.Sum256([]byte(old))
	k, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		panic(err)
	}
	id, err := peer.IDFromPrivateKey(k)
	if err != nil {
		panic(err)
	}
	return id
}

// playExport answers with a backup that is none; one passphrase cuts it short.
func playExport(w http.ResponseWriter, r *http.Request) {
	var in control.Export
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		refuse(w, mesh.Errorf(mesh.Invalid, "malformed"))
		return
	}
	text := fmt.Sprintf("sealed with: %s\n", in.Passphrase)
	if in.Passphrase == "cut me short please" {
		w.Header().Set("Content-Length", "1000")
	}
	_, _ = w.Write([]byte(text))
}
