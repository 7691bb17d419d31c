package trust

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"peercompute/pkg/audit"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// Bounds of invites.
const (
	MaxInvites   = 16 // open at once
	MaxInviteTTL = 7 * 24 * time.Hour
	MaxUses      = 100
)

// Invite is a standing offer of trust to whoever knows its secret.
type Invite struct {
	ID      string    `json:"id"` // 8 hex digits; names the invite, proves nothing
	Secret  [16]byte  `json:"secret"`
	Expires time.Time `json:"expires"`
	Uses    int       `json:"uses"` // that are left
	Allow   Allow     `json:"allow"`
	Quota   Quota     `json:"quota"`
	Name    string    `json:"name,omitempty"` // for the one who joins; empty = as it calls itself
	Until   time.Time `json:"until,omitzero"` // when what it grants ends; zero = never
	Made    time.Time `json:"made,omitzero"`
}

// madeSlack is how far a clock may be set back without voiding invites: it is
// corrected by a little all the time.
const madeSlack = 5 * time.Minute

// usable reports whether the invite can be used at now. A clock that was set back
// since it was made gives it no longer life: one from the future counts as expired.
func (i Invite) usable(now time.Time) bool {
	return i.Uses > 0 && now.Before(i.Expires) && !now.Before(i.Made.Add(-madeSlack)) && i.Expires.Sub(now) <= MaxInviteTTL+madeSlack
}

// Invite opens an invite.
func (l *List) Invite(ctx context.Context, i Invite) (Invite, error) {
	now := l.now()
	switch ttl := i.Expires.Sub(now); {
	case ttl <= 0 || ttl > MaxInviteTTL:
		return i, mesh.Errorf(mesh.Invalid, "an invite lasts up to %s, not %s", MaxInviteTTL, ttl.Round(time.Second))
	case i.Uses < 1 || i.Uses > MaxUses:
		return i, mesh.Errorf(mesh.Invalid, "an invite is for 1 to %d uses, not %d", MaxUses, i.Uses)
	case i.Name != "" && i.Uses > 1:
		return i, mesh.Errorf(mesh.Invalid, "an invite for several cannot name the one who joins")
	}
	i.Quota.Form, i.Made = quotaForm, now.UTC()
	if err := (Grant{Name: "x" + i.Name, Allow: i.Allow, Quota: i.Quota}).validate(); err != nil {
		return i, err
	}
	rand.Read(i.Secret[:])
	var id [4]byte
	rand.Read(id[:])
	i.ID = hex.EncodeToString(id[:])
	l.writing.Lock()
	defer l.writing.Unlock()
	err := l.store.Update(ctx, func(tx *store.Tx) error {
		left, err := openInvites(tx, now)
		if err != nil {
			return err
		}
		if len(left) >= MaxInvites {
			return mesh.Errorf(mesh.Quota, "%d invites are open already", MaxInvites).WithHint("withdraw some: peerctl peers invites")
		}
		if err := tx.PutJSON(store.Invites, []byte(i.ID), i); err != nil {
			return err
		}
		return l.note(tx, audit.Local, "invite.open", i.ID, i.describe())
	})
	if err == nil {
		l.noteInvites()
	}
	return i, err
}

// openInvites lists the invites that can still be used, and drops the others.
func openInvites(tx *store.Tx, now time.Time) ([]Invite, error) {
	var live []Invite
	var dead []string
	err := tx.Each(store.Invites, nil, func(k, _ []byte) (bool, error) {
		var i Invite
		if _, err := tx.GetJSON(store.Invites, k, &i); err != nil {
			return false, err
		}
		if !i.usable(now) {
			dead = append(dead, string(k))
		} else {
			live = append(live, i)
		}
		return true, nil
	})
	for _, k := range dead {
		if err == nil {
			err = tx.Delete(store.Invites, []byte(k))
		}
	}
	return live, err
}

// Invites lists the open ones, the next to expire first.
func (l *List) Invites() ([]Invite, error) {
	var out []Invite
	now := l.now()
	err := l.store.View(func(tx *store.Tx) error {
		return tx.Each(store.Invites, nil, func(k, _ []byte) (bool, error) {
			var i Invite
			_, err := tx.GetJSON(store.Invites, k, &i)
			if i.usable(now) {
				i.Quota = i.Quota.upgraded()
				out = append(out, i)
			}
			return true, err
		})
	})
	slices.SortFunc(out, func(a, b Invite) int { return a.Expires.Compare(b.Expires) })
	return out, err
}

// Withdraw closes an invite.
func (l *List) Withdraw(ctx context.Context, id string) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	err := l.store.Update(ctx, func(tx *store.Tx) error {
		if tx.Get(store.Invites, []byte(id)) == nil {
			return mesh.Errorf(mesh.NotFound, "there is no open invite %q", id).WithHint("list them with: peerctl peers invites")
		}
		if err := tx.Delete(store.Invites, []byte(id)); err != nil {
			return err
		}
		return l.note(tx, audit.Local, "invite.withdraw", id, "")
	})
	if err == nil {
		l.noteInvites()
	}
	return err
}

// Expecting reports whether an invite is open, so that a stranger may knock.
func (l *List) Expecting() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	now := l.now()
	return l.locked == nil && now.Before(l.expecting[1]) && !now.Before(l.expecting[0])
}

// noteInvites remembers from when until when some invite is open.
func (l *List) noteInvites() {
	all, err := l.Invites()
	var open [2]time.Time
	for n, i := range all {
		if err == nil && i.Expires.After(open[1]) {
			open[1] = i.Expires
		}
		if from := i.Made.Add(-madeSlack); err == nil && (n == 0 || from.Before(open[0])) {
			open[0] = from
		}
	}
	l.mu.Lock()
	l.expecting = open
	l.mu.Unlock()
}

// Redeem trusts p under the invite whose secret it has shown to know, and uses the
// invite up in the same transaction. It returns the grant and the secret.
func (l *List) Redeem(ctx context.Context, p mesh.PeerID, name string, addrs []string, knows func([16]byte) bool) (g Grant, secret [16]byte, err error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	all, err := l.Invites()
	if err != nil {
		return Grant{}, secret, err
	}
	var used *Invite
	for n := range all { // all of them, so that time says nothing about which
		if knows(all[n].Secret) && used == nil {
			used = &all[n]
		}
	}
	if used == nil {
		return Grant{}, secret, mesh.Errorf(mesh.Denied, "the invite is unknown, used up or expired").WithRule("join.secret").
			WithHint("ask for a new one: peerctl peers invite")
	}
	if _, locked := l.Locked(); locked {
		return Grant{}, secret, mesh.Errorf(mesh.Denied, "this machine is locked down").WithRule("lockdown")
	}
	g, known := l.Entry(p)
	switch now := l.now(); {
	case !known:
		g = Grant{Peer: p, Added: now.UTC(), Quota: used.Quota, Until: used.Until}
	case g.Expired(now): // it is renewed, with what the invite grants
		g.Allow, g.Quota, g.Until, g.Ended = 0, used.Quota, used.Until, false
	case used.Until.IsZero() || !g.Until.IsZero() && g.Until.Before(used.Until):
		g.Until = used.Until
	}
	g.Name = l.nameFor(g, used.Name, name)
	g.Allow |= used.Allow
	for _, a := range addrs {
		if !slices.Contains(g.Addrs, a) && len(g.Addrs) < 16 {
			g.Addrs = append(g.Addrs, a)
		}
	}
	err = l.put(ctx, p.String(), g, func(tx *store.Tx) error {
		var i Invite
		ok, err := tx.GetJSON(store.Invites, []byte(used.ID), &i)
		if err != nil {
			return err
		}
		if !ok || i.Uses < 1 {
			return mesh.Errorf(mesh.Denied, "the invite is used up").WithRule("join.secret")
		}
		if err := l.note(tx, p.String(), "invite.use", i.ID, ""); err != nil {
			return err
		}
		if i.Uses--; i.Uses == 0 {
			return tx.Delete(store.Invites, []byte(i.ID))
		}
		return tx.PutJSON(store.Invites, []byte(i.ID), i)
	})
	if err == nil {
		l.noteInvites()
	}
	return g, used.Secret, err
}

// nameFor chooses a free name: what it has, what was meant for it, what it would
// like, or a number behind that.
func (l *List) nameFor(g Grant, meant, wished string) string {
	if g.Name != "" {
		return g.Name
	}
	name := meant
	if name == "" {
		name = wished
	}
	if !mesh.ValidLabel(name) || name == "self" {
		name = "peer"
	}
	if len(name) > mesh.MaxName-4 {
		name = strings.TrimRight(name[:mesh.MaxName-4], "-")
	}
	free := name
	for n := 2; ; n++ {
		if _, taken := l.byName(free); !taken {
			return free
		}
		free = fmt.Sprintf("%s-%d", name, n)
	}
}

func (l *List) byName(name string) (Grant, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, g := range l.grants {
		if g.Name == name {
			return g, true
		}
	}
	return Grant{}, false
}
