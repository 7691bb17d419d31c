package member

import (
	"context"
	"runtime/debug"

	"peercompute/pkg/audit"
	"peercompute/pkg/backup"
	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// Export returns an encrypted backup of who this node is and whom it trusts. That
// one was made is on record before it leaves.
func (a *api) Export(ctx context.Context, in control.Export) ([]byte, error) {
	m := a.m
	if err := control.CheckPassphrase(in.Passphrase); err != nil {
		return nil, err
	}
	if !m.rotating.TryLock() { // one at a time: each takes much memory
		return nil, mesh.Errorf(mesh.Conflict, "a change of the key or another export is under way").WithHint("try again in a moment")
	}
	defer m.rotating.Unlock()
	c, err := m.content()
	if err != nil {
		return nil, err
	}
	defer clear(c.Key)
	data, err := backup.Seal(c, in.Passphrase, m.workFactor())
	debug.FreeOSMemory() // what scrypt took is not needed again
	if err != nil {
		return nil, err
	}
	return data, m.Store.Update(ctx, func(tx *store.Tx) error {
		return audit.Append(tx, audit.Entry{Time: m.Now(), Actor: audit.Local, Action: "identity.export", Outcome: audit.Done})
	})
}

func (m *Member) workFactor() int {
	if m.WorkFactor > 0 {
		return m.WorkFactor
	}
	return backup.WorkFactor
}

// content is what a backup of this node holds.
func (m *Member) content() (*backup.Content, error) {
	all, err := m.changes()
	if err != nil {
		return nil, err
	}
	c := &backup.Content{Made: m.Now().UTC(), Node: m.Key.ID, Role: m.Role, Trust: m.Trust.Snapshot()}
	for _, ch := range all {
		if !ch.Switched {
			return nil, mesh.Errorf(mesh.Conflict, "a change of the key is under way").WithHint("export when it is done: peerctl status")
		}
		c.Changes = append(c.Changes, backup.Change{Seq: ch.Seq, Old: ch.Old, New: ch.New, Step: ch.Step, Began: ch.Began, Until: ch.Until, Compromised: ch.Compromised})
	}
	c.Key, err = m.Key.Encode()
	return c, err
}
