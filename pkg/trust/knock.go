package trust

import (
	"context"
	"time"

	"peercompute/pkg/audit"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// Bounds of knocking.
const (
	MaxKnocking = 24 * time.Hour // that strangers may knock before the owner says so again
	MaxDenied   = 256            // peers whose refusal is remembered
)

// door is since and until when strangers may knock without an invite.
type door struct {
	Made  time.Time `json:"made"`
	Until time.Time `json:"until"`
}

var keyDoor = []byte("knocking") // in store.Meta

// open reports whether the door is open at now. A clock that was set back opens it
// no longer than was meant.
func (d door) open(now time.Time) bool {
	return now.Before(d.Until) && !now.Before(d.Made.Add(-madeSlack))
}

// LetKnock lets strangers knock for d from now on; 0 ends it. It returns until when.
func (l *List) LetKnock(ctx context.Context, d time.Duration) (time.Time, error) {
	if d < 0 || d > MaxKnocking {
		return time.Time{}, mesh.Errorf(mesh.Invalid, "strangers may knock for up to %s, not %s", MaxKnocking, d)
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	now := l.now().UTC()
	next := door{Made: now, Until: now.Add(d)}
	err := l.store.Update(ctx, func(tx *store.Tx) error {
		if d == 0 {
			if err := tx.Delete(store.Meta, keyDoor); err != nil {
				return err
			}
			return l.note(tx, audit.Local, "knock.off", "", "")
		}
		if err := tx.PutJSON(store.Meta, keyDoor, next); err != nil {
			return err
		}
		return l.note(tx, audit.Local, "knock.on", "", "until "+next.Until.Format(time.RFC3339))
	})
	if err != nil {
		return time.Time{}, err
	}
	if d == 0 {
		next = door{}
	}
	l.mu.Lock()
	l.door = next
	l.mu.Unlock()
	return next.Until, nil
}

// Knocking reports whether strangers may knock now, and until when.
func (l *List) Knocking() (until time.Time, open bool) {
	now := l.now()
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.locked != nil || !l.door.open(now) {
		return time.Time{}, false
	}
	return l.door.Until, true
}

func loadDoor(tx *store.Tx) (d door, err error) {
	_, err = tx.GetJSON(store.Meta, keyDoor, &d)
	return d, err
}

// denial is a refusal that is remembered.
type denial struct {
	Until time.Time `json:"until"`
}

// Deny remembers that the owner does not want p, for d. Where there are too many,
// the one that lapses first gives way.
func (l *List) Deny(ctx context.Context, p mesh.PeerID, d time.Duration) error {
	now := l.now()
	return l.store.Update(ctx, func(tx *store.Tx) error {
		var lapsed []string
		first, count := "", 0
		var least time.Time
		err := tx.Each(store.Denied, nil, func(k, _ []byte) (bool, error) {
			var have denial
			if _, err := tx.GetJSON(store.Denied, k, &have); err != nil {
				return false, err
			}
			switch {
			case !now.Before(have.Until):
				lapsed = append(lapsed, string(k))
			case string(k) == string(p):
			default:
				if count++; first == "" || have.Until.Before(least) {
					first, least = string(k), have.Until
				}
			}
			return true, nil
		})
		if count >= MaxDenied {
			lapsed = append(lapsed, first)
		}
		for _, k := range lapsed {
			if err == nil {
				err = tx.Delete(store.Denied, []byte(k))
			}
		}
		if err != nil {
			return err
		}
		if err := tx.PutJSON(store.Denied, []byte(p), denial{now.Add(d).UTC()}); err != nil {
			return err
		}
		return l.note(tx, audit.Local, "knock.deny", p.String(), "")
	})
}

// Denied reports whether the owner refused p not long ago, and until when that
// holds.
func (l *List) Denied(p mesh.PeerID) (until time.Time, denied bool, err error) {
	var have denial
	err = l.store.View(func(tx *store.Tx) error {
		_, err := tx.GetJSON(store.Denied, []byte(p), &have)
		return err
	})
	return have.Until, l.now().Before(have.Until), err
}

// Welcome trusts one who knocked, under g.Name or, if that is empty, under a free
// name near the one it wished for. A refusal that was remembered is forgotten.
func (l *List) Welcome(ctx context.Context, g Grant, wished string) (Grant, error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	if _, locked := l.Locked(); locked {
		return Grant{}, mesh.Errorf(mesh.Denied, "this machine is locked down").WithRule("lockdown").WithHint("end it with: peerctl unlock")
	}
	g.Name = l.nameFor(g, "", wished)
	return g, l.put(ctx, audit.Local, g, func(tx *store.Tx) error { return tx.Delete(store.Denied, []byte(g.Peer)) })
}
