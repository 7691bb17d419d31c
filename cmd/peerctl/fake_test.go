package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"peercompute/pkg/compose"
	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

// The identities of the fake mesh: this machine, two peers and one that nobody
// trusts yet.
const (
	idSelf  = "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X"
	idBob   = "12D3KooWH3uVF6wv47WnArKHk5p6cvgCJEb74UTmxztmQDc298L3"
	idGate  = "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo"
	idAlice = "12D3KooWLJtG8fd2hkQzTn96MrLvThmnNQjTUFZwGEsLRz5EmSzc"
)

// fakeNode is a node behind the real local API: it keeps peers, modules and
// workloads, and runs programs that it knows by name instead of real ones.
type fakeNode struct {
	copied  []byte        // into a container, as an archive
	waiting chan struct{} // receives whenever a request settles down to wait

	mu        sync.Mutex
	peers     []control.Peer
	modules   map[string]bool
	workloads []control.Workload
	revisions map[mesh.WorkloadID][]control.Revision
	queued    []control.Job
	inputs    []string // of the jobs, by their place
	began     time.Time
	lends     control.Lend
	crons     []control.Cron
	alarms    []control.Alarm
	rotated   mesh.PeerID // the new key, once there is one
}

// startFake serves a fresh node on home's socket until the test ends.
func startFake(home string, cleanup func(func())) (*fakeNode, error) {
	n := &fakeNode{
		waiting: make(chan struct{}, 16),
		modules: map[string]bool{},
		began:   time.Now(),
		lends:   fakeLend(),
		alarms:  playedAlarms(),
		peers: []control.Peer{
			{ID: mustPeer(idBob), Name: "bob", Addrs: []string{"/ip4/192.0.2.7/tcp/4001"}, Connected: true, Liveness: bobsLife()},
			{ID: mustPeer(idGate), Name: "gate", Connected: true, Liveness: gatesLife(), Grant: control.Grant{Allow: []string{"route"}, Requests: 60}},
		},
	}
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", filepath.Join(home, control.SocketName))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &http.Server{Handler: n.routes(), BaseContext: func(net.Listener) context.Context { return ctx }}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	cleanup(func() {
		cancel()
		s.Close()
		<-done
	})
	return n, nil
}

func mustPeer(s string) mesh.PeerID {
	id, err := mesh.ParsePeerID(s)
	if err != nil {
		panic(err)
	}
	return id
}

// newFake is startFake for a plain Go test; it returns the home too.
func newFake(t *testing.T) (*fakeNode, string) {
	t.Helper()
	home, err := os.MkdirTemp("", "pc") // short: a socket's path is limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	n, err := startFake(home, t.Cleanup)
	if err != nil {
		t.Fatal(err)
	}
	return n, home
}

func (n *fakeNode) routes() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, h func(r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			n.mu.Lock()
			v, err := h(r)
			n.mu.Unlock()
			if err != nil {
				refuse(w, err)
				return
			}
			_ = json.NewEncoder(w).Encode(v)
		})
	}
	n.identityRoutes(handle)
	mux.HandleFunc("POST /v1/identity/export", playExport)
	n.journalRoutes(mux, handle)
	n.imageRoutes(mux, handle)
	n.secretRoutes(handle)
	n.volumeRoutes(mux, handle)
	handle("GET /v1/whoami", func(*http.Request) (any, error) { return n.whoami(), nil })
	handle("GET /v1/doctor", func(*http.Request) (any, error) { return n.checks(), nil })
	handle("GET /v1/status", func(*http.Request) (any, error) { return n.status(), nil })
	handle("GET /v1/peers", func(*http.Request) (any, error) { return n.peers, nil })
	handle("POST /v1/peers", n.addPeer)
	handle("GET /v1/peers/{peer}", n.showPeer)
	handle("PATCH /v1/peers/{peer}", n.allowPeer)
	handle("DELETE /v1/peers/{peer}", n.removePeer)
	handle("GET /v1/lend", n.lend)
	handle("PATCH /v1/lend", n.setLend)
	handle("DELETE /v1/lend", n.resetLend)
	handle("POST /v1/pause", n.pause)
	handle("DELETE /v1/pause", n.resume)
	handle("POST /v1/modules", n.addModule)
	handle("GET /v1/modules/{digest}", func(r *http.Request) (any, error) {
		d := r.PathValue("digest")
		if !n.modules[d] {
			return nil, mesh.Errorf(mesh.NotFound, "the module %s is not here", d)
		}
		return control.Module{Digest: d}, nil
	})
	handle("GET /v1/workloads", n.list)
	handle("GET /v1/workloads/{ref}", n.inspect)
	handle("DELETE /v1/workloads/{ref}", n.remove)
	handle("POST /v1/workloads/{ref}/restart", n.change(func(w *control.Workload, _ *http.Request) {
		w.Status.Restarts++
		setState(w, mesh.Running)
	}))
	handle("POST /v1/workloads/{ref}/stop", n.change(func(w *control.Workload, _ *http.Request) { setState(w, mesh.Stopped) }))
	handle("DELETE /v1/workloads/{ref}/publish", n.change(func(w *control.Workload, _ *http.Request) { w.URL = "" }))
	handle("POST /v1/workloads/{ref}/publish", n.change(func(w *control.Workload, r *http.Request) {
		var p control.Publish
		if json.NewDecoder(r.Body).Decode(&p) == nil && p.Gateway != "down" {
			w.URL = publicURL(w.Name)
		}
	}))
	n.jobRoutes(handle)
	n.cronRoutes(handle)
	handle("POST /v1/compose", func(r *http.Request) (any, error) {
		var f control.ComposeFile
		if err := json.NewDecoder(r.Body).Decode(&f); err != nil {
			return nil, err
		}
		p, needs, err := compose.Load(r.Context(), compose.Input{Name: f.Name, Dir: f.Dir, Text: f.Text, Files: f.Files, Environ: f.Environ, Profiles: f.Profiles})
		out := control.ComposeProject{Name: p.Name, Needs: needs}
		for _, s := range p.Services {
			c := control.ComposeService{Spec: s.Spec, Ends: s.Ends, Notes: s.Notes}
			if b := s.Build; b != nil {
				c.Build = &control.Build{Dir: b.Dir, Inline: b.Inline, BuildOptions: control.BuildOptions{Dockerfile: b.Dockerfile, Target: b.Target, Args: b.Args}}
			}
			out.Services = append(out.Services, c)
		}
		for _, s := range p.Secrets {
			out.Secrets = append(out.Secrets, control.ComposeSecret{Name: s.Name, File: s.File})
		}
		return out, err
	})
	mux.HandleFunc("POST /v1/jobs/{ref}/output", n.jobOutput)
	mux.HandleFunc("GET /v1/workloads/{ref}/logs", n.logs)
	handle("GET /v1/workloads/{ref}/history", n.history)
	mux.HandleFunc("POST /v1/workloads/{ref}/rollback", n.rollback)
	mux.HandleFunc("POST /v1/deploy", n.deploy)
	mux.HandleFunc("POST /v1/run", n.run)
	mux.HandleFunc("POST /v1/quorum", n.runQuorum)
	n.knockRoutes(mux, handle)
	n.sessionRoutes(mux, handle)
	return mux
}

func publicURL(name string) string { return "https://" + name + "-abcdefghij.apps.example.org" }

func refuse(w http.ResponseWriter, err error) {
	w.WriteHeader(http.StatusForbidden)
	_ = json.NewEncoder(w).Encode(asControl(err))
}

func asControl(err error) *control.Error {
	e := mesh.AsError(err)
	out := &control.Error{Kind: e.Kind.String(), Code: e.Kind, Rule: e.Rule, Msg: e.Msg, Hint: e.Hint}
	if strings.HasPrefix(e.Rule, "grant.") {
		out.Peer = "bob"
	}
	return out
}

func (n *fakeNode) whoami() control.Whoami {
	who := control.Whoami{ID: mustPeer(idSelf), Addrs: []string{"/ip4/192.0.2.1/tcp/4001/p2p/" + idSelf}, Role: "peer", Version: "v0.0.0-fake"}
	if n.rotated != "" {
		who.ID = n.rotated
	}
	return who
}

func (n *fakeNode) status() control.Status {
	s := control.Status{
		Whoami: n.whoami(), Uptime: 3 * time.Hour, Peers: len(n.peers), Connected: 2, Workloads: len(n.workloads),
		Runtimes: []control.Runtime{{Kind: mesh.Container, Detail: "no Docker engine answers"}, {Kind: mesh.Wasm, Ready: true, Detail: "WASI preview 1"}},
		Tunnels:  []control.Tunnel{{Peer: "gate", Up: true, Address: "/ip4/192.0.2.9/tcp/4001"}},
		Warnings: []string{"no memory cgroup: guests share one limit"},
	}
	for _, p := range n.peers {
		s.PeerStates = append(s.PeerStates, control.PeerState{Name: p.Name, ID: p.ID, Liveness: p.Liveness})
	}
	s.Lending = &n.lends.State
	for _, w := range n.workloads {
		if w.URL != "" {
			s.Routes = append(s.Routes, control.Route{URL: w.URL, Workload: w.ID, Peer: "gate", Up: true})
		}
	}
	return s
}

func (n *fakeNode) peer(ref string) (*control.Peer, error) {
	for i, p := range n.peers {
		if p.Name == ref || len(ref) > 8 && strings.HasPrefix(p.ID.String(), ref) {
			return &n.peers[i], nil
		}
	}
	return nil, mesh.Errorf(mesh.NotFound, "no peer %q", ref).WithHint("list peers with: peerctl peers ls")
}

func (n *fakeNode) addPeer(r *http.Request) (any, error) {
	var a control.AddPeer
	if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
		return nil, err
	}
	id, err := mesh.ParsePeerID(a.ID)
	if err != nil {
		return nil, err
	}
	if a.Name == "" {
		a.Name = "peer-" + strings.ToLower(a.ID[len(a.ID)-4:])
	}
	p := control.Peer{ID: id, Name: a.Name, Addrs: a.Addrs, Added: n.began, Grant: control.Grant{Images: []string{"any"}, FuelDay: 1e14}, Liveness: control.Liveness{State: "unknown"}}
	applyGrant(&p.Grant, a.Change)
	n.peers = append(n.peers, p)
	return p, nil
}

func applyGrant(g *control.Grant, c control.GrantChange) {
	set(&g.Allow, c.Allow)
	set(&g.Workloads, c.Workloads)
	set(&g.Resources.MilliCPU, c.MilliCPU)
	set(&g.Resources.Memory, c.Memory)
	set(&g.Resources.Disk, c.Disk)
	set(&g.Names, c.Names)
	set(&g.Requests, c.Requests)
	set(&g.FuelDay, c.FuelDay)
	set(&g.Images, c.Images)
	set(&g.Egress, c.Egress)
	set(&g.SignedBy, c.SignedBy)
	if c.Until != nil {
		g.Until = c.Until.At
	}
	g.Ended = !g.Until.IsZero() && g.Until.Before(time.Now())
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// showPeer plays a peer that uses a part of its grant, and all its fuel of today.
func (n *fakeNode) showPeer(r *http.Request) (any, error) {
	p, err := n.peer(r.PathValue("peer"))
	if err != nil {
		return nil, err
	}
	out := *p
	out.Usage = &control.Usage{
		Workloads: 2, Resources: mesh.Resources{MilliCPU: 200, Memory: 300 << 20}, FuelToday: out.Grant.FuelDay,
		FuelOpens: time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC),
	}
	return out, nil
}

func (n *fakeNode) allowPeer(r *http.Request) (any, error) {
	p, err := n.peer(r.PathValue("peer"))
	if err != nil {
		return nil, err
	}
	var c control.GrantChange
	if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
		return nil, err
	}
	applyGrant(&p.Grant, c)
	return *p, nil
}

func (n *fakeNode) removePeer(r *http.Request) (any, error) {
	p, err := n.peer(r.PathValue("peer"))
	if err != nil {
		return nil, err
	}
	out := control.RemovedPeer{ID: p.ID, Name: p.Name}
	if r.URL.Query().Get("keep") == "false" {
		for i, w := range n.workloads {
			if w.Owner == p.Name {
				setState(&n.workloads[i], mesh.Stopped)
				out.Stopped = append(out.Stopped, w.ID)
			}
		}
	}
	n.peers = slices.DeleteFunc(n.peers, func(q control.Peer) bool { return q.ID == out.ID })
	return out, nil
}

func (n *fakeNode) addModule(r *http.Request) (any, error) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	m := control.Module{Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(len(b))}
	n.modules[m.Digest] = true
	return m, nil
}

func setState(w *control.Workload, s mesh.State) {
	w.State, w.Status.State, w.Status.Since = s, s, time.Now()
}

func (n *fakeNode) find(r *http.Request) (int, error) {
	ref, peer := r.PathValue("ref"), r.URL.Query().Get("peer")
	found := -1
	for i, w := range n.workloads {
		if peer != "" && w.Peer != peer || w.Name != ref && !strings.HasPrefix(string(w.ID), ref) {
			continue
		}
		if found >= 0 {
			return 0, mesh.Errorf(mesh.Conflict, "%q is the name of several workloads", ref).WithHint("add --peer, or use the ID that peerctl ps shows")
		}
		found = i
	}
	if found < 0 {
		return 0, mesh.Errorf(mesh.NotFound, "no workload %q", ref).WithHint("list workloads with: peerctl ps")
	}
	return found, nil
}

func (n *fakeNode) list(r *http.Request) (any, error) {
	var out []control.Workload
	for _, w := range n.workloads {
		if p := r.URL.Query().Get("peer"); p == "" || w.Peer == p {
			w.Spec = nil
			out = append(out, w)
		}
	}
	return out, nil
}

func (n *fakeNode) inspect(r *http.Request) (any, error) {
	i, err := n.find(r)
	if err != nil {
		return nil, err
	}
	return n.workloads[i], nil
}

func (n *fakeNode) remove(r *http.Request) (any, error) {
	i, err := n.find(r)
	if err != nil {
		return nil, err
	}
	w := n.workloads[i]
	if !w.State.Final() && r.URL.Query().Get("force") != "true" {
		return nil, mesh.Errorf(mesh.Conflict, "%s is %s", w.Name, w.State).WithHint("stop it first, or: peerctl rm -f %s", w.Name)
	}
	n.workloads = slices.Delete(n.workloads, i, i+1)
	return w, nil
}

func (n *fakeNode) change(do func(*control.Workload, *http.Request)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		i, err := n.find(r)
		if err != nil {
			return nil, err
		}
		do(&n.workloads[i], r)
		return n.workloads[i], nil
	}
}

func (n *fakeNode) logs(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	i, err := n.find(r)
	n.mu.Unlock()
	if err != nil {
		refuse(w, err)
		return
	}
	q := r.URL.Query()
	lines := []string{"listening on :80\n", "GET /\n", "workload " + fmt.Sprint(i) + " \x1b[31mred\x1b[0m \x1b]0;title\x07done\n"}
	since, _ := time.Parse(time.RFC3339, q.Get("since"))
	first := 0
	if q.Get("tail") == "1" {
		first = 2
	}
	for i, text := range lines {
		l := control.LogLine{Time: time.Date(2026, 11, 26, 8, i, 0, 0, time.UTC), Stream: mesh.Stdout, Text: strings.TrimSuffix(text, "\n")}
		if i == 1 {
			l.Stream = mesh.Stderr
		}
		switch {
		case i < first || q.Get("stream") != "" && q.Get("stream") != string(l.Stream) || l.Time.Before(since):
		case q.Get("lines") == "true":
			_ = json.NewEncoder(w).Encode(l)
		default:
			_, _ = io.WriteString(w, text)
		}
	}
	if r.URL.Query().Get("follow") == "true" {
		_ = http.NewResponseController(w).Flush()
		n.waiting <- struct{}{}
		<-r.Context().Done()
	}
}
