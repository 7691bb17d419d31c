package trust

import (
	"context"
	"time"

	"peercompute/pkg/audit"
	"peercompute/pkg/store"
)

// Lockdown is the state in which nobody is allowed anything, whatever the list
// says. It outlives restarts.
type Lockdown struct {
	Since  time.Time `json:"since"`
	Reason string    `json:"reason,omitempty"` // empty = the owner asked for it
}

var keyLockdown = []byte("lockdown") // in store.Meta

// Lock denies everybody from now on. Locking twice keeps the first time.
func (l *List) Lock(ctx context.Context) (Lockdown, error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	now := Lockdown{Since: l.now().UTC()}
	if have, locked := l.Locked(); locked {
		return have, nil
	}
	err := l.store.Update(ctx, func(tx *store.Tx) error {
		if err := tx.PutJSON(store.Meta, keyLockdown, now); err != nil {
			return err
		}
		return l.note(tx, audit.Local, "lockdown", "", "")
	})
	if err == nil {
		l.setLocked(&now)
	}
	return now, err
}

// LockAnew denies everybody because this node's own state is in doubt, and voids
// every request that was signed for that state, in one step.
func (l *List) LockAnew(ctx context.Context, reason string) (Lockdown, error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	now := Lockdown{Since: l.now().UTC(), Reason: reason}
	err := l.store.Renew(ctx, func(tx *store.Tx) error {
		if err := tx.PutJSON(store.Meta, keyLockdown, now); err != nil {
			return err
		}
		return l.note(tx, audit.Node, "lockdown", "", reason)
	})
	if err == nil {
		l.setLocked(&now)
	}
	return now, err
}

// Unlock makes the list count again.
func (l *List) Unlock(ctx context.Context) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	err := l.store.Update(ctx, func(tx *store.Tx) error {
		if err := tx.Delete(store.Meta, keyLockdown); err != nil {
			return err
		}
		return l.note(tx, audit.Local, "unlock", "", "")
	})
	if err == nil {
		l.setLocked(nil)
	}
	return err
}

// Locked reports whether nobody is allowed anything now, and since when.
func (l *List) Locked() (Lockdown, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.locked == nil {
		return Lockdown{}, false
	}
	return *l.locked, true
}

func (l *List) setLocked(to *Lockdown) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.locked = to
}

func loadLockdown(tx *store.Tx) (*Lockdown, error) {
	var have Lockdown
	ok, err := tx.GetJSON(store.Meta, keyLockdown, &have)
	if !ok || err != nil {
		return nil, err
	}
	return &have, nil
}
