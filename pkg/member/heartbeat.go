package member

import (
	"context"
	"fmt"
	"time"

	"peercompute/pkg/alarm"
	"peercompute/pkg/audit"
	"peercompute/pkg/control"
	"peercompute/pkg/heartbeat"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// This file joins heartbeats to the network, the trust list and the alarms.

const heartbeatTime = 10 * time.Second // for reading one, and for writing its answer

func (m *Member) openHeart() (err error) {
	m.Heart, err = heartbeat.New(heartbeat.Config{
		Key: m.Key, Store: m.Store, Now: m.Now, Interval: m.Heartbeat, Program: m.Version, Log: m.Log,
		Peers: func() []mesh.PeerID {
			var out []mesh.PeerID
			for _, g := range m.Trust.Live() {
				out = append(out, g.Peer)
			}
			return out
		},
		Denied: func() bool { _, locked := m.Trust.Locked(); return locked },
		Known: func(p mesh.PeerID) (mesh.PeerID, bool) {
			g, ok := m.Trust.Get(p)
			return g.Peer, ok
		},
		Connected:  func(p mesh.PeerID) bool { _, up := m.Net.Connected(p); return up },
		Exchange:   m.exchangeHeartbeat,
		Self:       m.describeSelf,
		Mine:       m.Mine,
		Contains:   m.logsContain,
		RolledBack: m.rolledBack,
		Alarm:      m.heartAlarm,
	})
	if err != nil {
		return err
	}
	m.Alarms.On(func(a alarm.Alarm) {
		m.Log.Warn("alarm: "+a.Text, "kind", a.Kind, "peer", a.Peer, "next", a.Hint)
		m.tell("alarm."+a.Kind, a.Peer, a.Text)
		m.Audit.Note(audit.Entry{Actor: audit.Node, Action: "alarm." + a.Kind, Subject: a.Peer.String(), Outcome: audit.Done, Detail: a.Text})
	})
	m.OnPeer(m.Heart.PeerConnected)
	m.OnTrust(m.Heart.PeersChanged)
	return nil
}

func (m *Member) setFree(f func() *wire.Capacity) {
	m.mu.Lock()
	m.free = f
	m.mu.Unlock()
}

// describeSelf is what a heartbeat says to one peer. What could be lent is told
// only to those who may observe.
func (m *Member) describeSelf(to mesh.PeerID) heartbeat.Self {
	s := heartbeat.Self{Incarnation: m.Store.Incarnation()}
	s.Trust.Seq, s.Trust.Hash = m.Trust.Head()
	head, err := m.Audit.Head()
	if err != nil {
		m.Log.Error("cannot read the head of the audit log", "err", err)
	}
	s.Audit = wire.Head{Seq: head.Seq, Hash: head.Hash}
	m.mu.Lock()
	free := m.free
	m.mu.Unlock()
	if g, ok := m.Trust.Get(to); ok && g.Allow.Has(trust.Observe) && free != nil {
		s.Free = free()
	}
	return s
}

// logsContain says whether both logs still hold what was their head at a time. Old
// entries of the audit log go, and leave a mark that says so.
func (m *Member) logsContain(trusted, audited wire.Head, at time.Time) (bool, error) {
	ok, err := m.Trust.Contains(trusted.Seq, trusted.Hash)
	if err != nil || !ok {
		return false, err
	}
	return m.Audit.Contains(audit.Head{Seq: audited.Seq, Hash: audited.Hash}, at)
}

// exchangeHeartbeat carries one heartbeat to a peer.
func (m *Member) exchangeHeartbeat(ctx context.Context, p mesh.PeerID, beat []byte) ([]byte, time.Duration, error) {
	s, err := m.Net.Open(ctx, p, wire.ProtocolHeartbeat)
	if err != nil {
		if answers, ok := peernet.Mismatch(err); ok {
			m.askSuccessor(ctx, p, answers)
		}
		return nil, 0, err
	}
	defer s.Reset()
	defer context.AfterFunc(ctx, s.Reset)()
	began := time.Now()
	if err := wire.WriteMessage(s, beat); err != nil {
		return nil, 0, silent(err)
	}
	pulse, err := wire.ReadMessage(s, wire.MaxPulse)
	if err != nil {
		return nil, 0, silent(err)
	}
	rtt := time.Since(began)
	_ = s.Close()
	m.known(ctx, p)
	return pulse, rtt, nil
}

func silent(err error) error {
	return mesh.Errorf(mesh.Unavailable, "the peer does not answer heartbeats; does it trust this machine?").Because(err)
}

// onHeartbeat answers a peer's heartbeat.
func (m *Member) onHeartbeat(ctx context.Context, s *peernet.Stream) {
	s.SetDeadline(time.Now().Add(heartbeatTime))
	data, err := wire.ReadMessage(s, wire.MaxHeartbeat)
	if err == nil {
		pulse := m.Heart.Receive(ctx, s.Peer(), data)
		if pulse == nil {
			s.Reset()
			return
		}
		err = wire.WriteMessage(s, pulse)
	}
	if err != nil {
		s.Reset()
	}
}

// rolledBack acts on the proof that this node's state is older than what its peers
// saw. What it says of trust, and of requests done, cannot be believed: nobody is
// allowed anything until the owner has looked, and requests that were signed for
// the lost state are void for ever. What runs here is left alone.
func (m *Member) rolledBack(ctx context.Context, by mesh.PeerID, evidence *wire.Heartbeat) {
	m.removing.Lock()
	defer m.removing.Unlock()
	if evidence.Incarnation != m.Store.Incarnation() {
		return // another peer proved it a moment ago
	}
	ctx = context.WithoutCancel(ctx)
	when := time.UnixMilli(evidence.Time).UTC().Format("2006-01-02 15:04:05 MST")
	why := fmt.Sprintf("%s saw this node's logs on %s, and what they held then is not in them any more", m.Trust.Name(by), when)
	m.Log.Error("the state file was rolled back or changed; denying everybody", "peer", by, "seen", when)
	if _, err := m.Trust.LockAnew(ctx, why); err != nil {
		m.Log.Error("cannot deny everybody", "err", err)
		return
	}
	for _, g := range m.Trust.All() {
		if err := m.Net.Disconnect(g.Peer); err != nil {
			m.Log.Warn("cannot close a connection cleanly", "peer", g.Peer, "err", err)
		}
	}
	m.trustChanged()
	m.raise(ctx, alarm.Alarm{
		Kind: "self.rolled-back", Text: "the state file was rolled back or changed: " + why,
		Hint: "check who is trusted (peerctl peers ls) and what runs (peerctl ps); then: peerctl unlock",
	})
}

// heartAlarm words what heartbeats found out about a peer.
func (m *Member) heartAlarm(ctx context.Context, kind string, p mesh.PeerID) {
	name := m.Trust.Name(p)
	a := alarm.Alarm{Kind: kind, Peer: p}
	switch kind {
	case heartbeat.AlarmRolledBack:
		a.Text = name + " shows logs that have lost what it showed before: its state was rolled back or changed"
		a.Hint = "ask its owner; what it promised before may be forgotten there"
	case heartbeat.AlarmNewState:
		a.Text = name + " has begun a new state file: what its logs held before is not continued"
		a.Hint = "ask its owner whether the machine was restored or set up anew"
	case heartbeat.AlarmDoubled:
		a.Text = "two nodes use the identity of " + name + " in turns"
		a.Hint = "ask its owner: a backup was restored beside the original, or the key was stolen"
	case heartbeat.AlarmSelfTwice:
		a.Text = name + " hears from two nodes that use this node's identity in turns"
		a.Hint = "end the other one; if it is not yours: peerctl identity rotate --compromised"
	}
	m.raise(ctx, a)
}

func (m *Member) raise(ctx context.Context, a alarm.Alarm) {
	if err := m.Alarms.Raise(context.WithoutCancel(ctx), a); err != nil {
		m.Log.Error("cannot keep an alarm", "kind", a.Kind, "err", err)
	}
}

func (m *Member) alarmWarnings(s *control.Status) {
	for _, al := range m.Alarms.All() {
		s.Warnings = append(s.Warnings, fmt.Sprintf("alarm %d, %s: %s", al.ID, al.Last.Format("2006-01-02 15:04:05 MST"), al.Text))
	}
}

// life is how a peer is.
func (m *Member) life(p mesh.PeerID) control.Liveness {
	v := m.Heart.View(p)
	l := control.Liveness{State: string(v.State), Seen: v.Seen, RTT: v.RTT, Version: v.Program, Reason: v.Reason}
	_, l.Relayed, l.Connected = m.Net.Path(p)
	if v.ClockOff() {
		l.ClockOff = v.Offset
	}
	if f := v.Free; f != nil {
		l.Free = &control.Free{Workloads: f.Workloads, MilliCPU: f.MilliCPU, Memory: f.Memory, Disk: f.Disk, Closed: f.Closed}
	}
	return l
}

// Alarms lists what the owner must look at.
func (a *api) Alarms(context.Context) ([]control.Alarm, error) {
	out := []control.Alarm{}
	for _, al := range a.m.Alarms.All() {
		out = append(out, a.alarm(al))
	}
	return out, nil
}

// DismissAlarm forgets one.
func (a *api) DismissAlarm(ctx context.Context, id uint64) (control.Alarm, error) {
	al, err := a.m.Alarms.Dismiss(ctx, id)
	return a.alarm(al), err
}

func (a *api) alarm(al alarm.Alarm) control.Alarm {
	out := control.Alarm{ID: al.ID, Kind: al.Kind, Text: al.Text, Hint: al.Hint, First: al.First, Last: al.Last, Count: al.Count}
	if al.Peer != "" {
		out.Peer = a.m.Trust.Name(al.Peer)
	}
	return out
}
