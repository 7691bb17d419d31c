package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/frame"
	"peercompute/pkg/mesh"
)

// deploy plays a deploy. What happens is decided by the image: "crash" ends before
// it answers, "missing" is not found, "slow" never answers; others answer.
func (n *fakeNode) deploy(w http.ResponseWriter, r *http.Request) {
	var d control.Deploy
	if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
		refuse(w, err)
		return
	}
	if err := n.admit(d.Peer, d.Spec); err != nil {
		refuse(w, err)
		return
	}
	send := func(ev control.DeployEvent) {
		_ = json.NewEncoder(w).Encode(ev)
		_ = http.NewResponseController(w).Flush()
	}
	work := n.accept(d)
	before := n.revise(&work, "")
	step := func(s mesh.State) {
		setState(&work, s)
		if before == nil || s == mesh.Running {
			n.store(work)
		}
		seen := work
		send(control.DeployEvent{Workload: &seen})
	}
	step(mesh.Pending)
	if !d.Wait {
		send(control.DeployEvent{Workload: &work, Done: true})
		return
	}
	image, _, _ := strings.Cut(d.Spec.Image, ":")
	step(mesh.Pulling)
	if image == "missing" {
		step(mesh.Failed)
		send(control.DeployEvent{Workload: &work, Error: asControl(mesh.Errorf(mesh.NotFound, "there is no image %s", d.Spec.Image).WithRule("grant.image"))})
		return
	}
	send(control.DeployEvent{Progress: &mesh.Progress{What: "pulling " + d.Spec.Image, Done: 5, Total: 10}})
	step(mesh.Starting)
	switch image {
	case "slow":
		n.waiting <- struct{}{}
		<-r.Context().Done()
		return
	case "crash":
		work.Status.ExitCode = 3
		step(mesh.Exited)
		if before != nil {
			now, err := n.unchanged(*before, work, "exited (3)")
			send(control.DeployEvent{Workload: &now, Log: []string{"reading config"}, Error: err})
			return
		}
		send(control.DeployEvent{
			Workload: &work, Log: []string{"reading config", "panic: no \x1b]0;x\x07DATABASE_URL"},
			Error: asControl(mesh.Errorf(mesh.Unavailable, "%s exited (3) before it answered", work.Name)),
		})
		return
	}
	if d.Spec.Publish != nil && d.Spec.Publish.Gateway != "down" {
		work.URL = publicURL(work.Name)
	}
	if d.Spec.Health != nil {
		work.Status.Health = mesh.HealthOK
		if image == "sick" {
			work.Status.Health = mesh.Unhealthy("GET / answered 500")
		}
	}
	work.Status.Idle = d.Spec.Shape == mesh.Server // nobody asks it anything
	step(mesh.Running)
	if d.Ends {
		step(mesh.Exited)
	}
	send(control.DeployEvent{Workload: &work, Done: true})
}

func (n *fakeNode) admit(peer string, s mesh.Spec) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := s.Validate(); err != nil {
		return err
	}
	if s.Runtime == mesh.Wasm && !n.modules[s.Digest] {
		return mesh.Errorf(mesh.NotFound, "no module %s was uploaded", s.Digest)
	}
	if peer == "" || peer == self {
		return nil
	}
	if _, err := n.peer(peer); err != nil {
		return err
	}
	if s.Resources.Memory > 1<<30 {
		return mesh.Errorf(mesh.Quota, "memory %s exceeds your grant of 1 GiB there", formatSize(s.Resources.Memory)).
			WithRule("grant.memory").WithHint("ask bob for: peerctl peers allow YOU --memory 2G")
	}
	return nil
}

func (n *fakeNode) accept(d control.Deploy) control.Workload {
	peer, id := d.Peer, idBob
	if peer == "" || peer == self {
		peer, id = self, idSelf
	}
	full := d.Spec.WithDefaults()
	return control.Workload{
		ID: mesh.NewWorkloadID(sha256.Sum256([]byte(peer + d.Spec.Name))), Name: d.Spec.Name,
		Peer: peer, PeerID: mustPeer(id), Owner: self, OwnerID: mustPeer(idSelf),
		Kind: full.Runtime, Shape: full.Shape, Image: full.Image, Spec: &full, Created: time.Now(), Project: full.Project,
	}
}

func (n *fakeNode) store(w control.Workload) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range n.workloads {
		if n.workloads[i].ID == w.ID {
			n.workloads[i] = w
			return
		}
	}
	n.workloads = append(n.workloads, w)
}

// run plays a job named by its first argument: cat copies stdin, env prints its
// environment, exit ends with a status, hog is killed, sleep never ends, refuse is
// refused after the upgrade.
func (n *fakeNode) run(w http.ResponseWriter, r *http.Request) {
	var job control.Run
	if err := json.NewDecoder(r.Body).Decode(&job); err != nil {
		refuse(w, err)
		return
	}
	if err := n.admit(job.Peer, job.Spec); err != nil {
		refuse(w, err)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		refuse(w, err)
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+control.UpgradeJob+"\r\n\r\n")
	send := func(typ byte, v any) {
		b, isBytes := v.([]byte)
		if !isBytes {
			b, _ = json.Marshal(v)
		}
		_ = frame.Write(conn, typ, b)
	}
	args := append(job.Spec.Args, "")
	var exit control.RunResult
	exit.Peer = job.Peer
	if job.Any {
		exit.Peer = "bob"
	}
	send(control.FrameBegun, control.Started{Peer: exit.Peer})
	switch args[0] {
	case "cat":
		var in bytes.Buffer
		for {
			typ, b, err := frame.Read(rw)
			if err != nil || typ == control.FrameStdin && len(b) == 0 {
				break
			}
			in.Write(b)
		}
		send(control.FrameStdout, in.Bytes())
		send(control.FrameStderr, fmt.Appendf(nil, "read %d bytes\n", in.Len()))
	case "env":
		send(control.FrameStdout, []byte(strings.Join(job.Spec.Env, "\n")+"\n"))
	case "exit":
		_, _ = fmt.Sscan(args[1], &exit.Code)
	case "hog":
		exit.Exit = mesh.Exit{Kind: mesh.OutOfMemory, Reason: "killed: memory 64 MiB"}
	case "burn":
		exit.Exit = mesh.Exit{Kind: mesh.OutOfFuel, Reason: fmt.Sprintf("out of fuel after %d", job.Spec.Resources.Fuel)}
	case "trap":
		exit.Exit = mesh.Exit{Kind: mesh.Trap, Reason: "trap: unreachable", Trace: "\t.main.explode()\n\t.main.main()\n"}
	case "whole":
		send(control.FrameStdout, fmt.Appendf(nil, "%v\n", job.Whole))
	case "receipt":
		r := n.fakeReceipt("aaaabbbbccccdddd")
		exit.Receipt = &r
	case "sleep":
		n.waiting <- struct{}{}
		_, _ = io.Copy(io.Discard, rw)
		return
	case "refuse":
		send(control.FrameError, asControl(mesh.Errorf(mesh.Denied, "you may not run jobs there").WithRule("grant.deploy")))
		return
	}
	send(control.FrameExit, exit)
}
