package trust

import (
	"testing"
	"time"
)

// clocked is a fixture whose clock can be set.
type clocked struct {
	*fixture
	off time.Duration
}

func (c *clocked) clock(d time.Duration) {
	c.off += d
	c.List.now = func() time.Time { return time.Now().Add(c.off) }
}

func (c *clocked) reopen() {
	c.fixture.reopen()
	c.clock(0)
}

// A grant denies from its end on. A clock that was ahead and is put right gives it
// back, until its end is final; renewing it is then the only way.
func TestGrantsEndByTheClock(t *testing.T) {
	f := &clocked{fixture: open(t)}
	alice := peerID(t, 1)
	f.put(1, "alice", Deploy)
	g, _ := f.Get(alice)
	g.Until = f.now().Add(time.Hour)
	if err := f.Put(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	want := func(when string, allowed bool) {
		t.Helper()
		if f.Allowed(alice) != allowed {
			t.Errorf("%s: allowed %t", when, !allowed)
		}
		if _, on := f.Entry(alice); !on {
			t.Errorf("%s: the entry is gone", when)
		}
		if _, ended := f.Ended(alice); ended == allowed || (len(f.Live()) == 1) != allowed {
			t.Errorf("%s: ended %t, live %d", when, ended, len(f.Live()))
		}
	}
	want("before its end", true)
	f.clock(time.Hour)
	want("at its end", false)
	f.reopen()
	want("after a restart", false)
	f.clock(-time.Minute)
	want("after the clock was put right", true)
	if err := f.End(t.Context(), alice); err != nil { // it has not ended
		t.Fatal(err)
	}
	want("not ended for good too early", true)
	f.clock(2 * time.Hour)
	if err := f.End(t.Context(), alice); err != nil {
		t.Fatal(err)
	}
	f.clock(-24 * time.Hour)
	f.reopen()
	want("after a clock set back", false)
	g.Until, g.Ended = time.Time{}, false
	if err := f.Put(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	want("renewed", true)
}

// A clock set back gives an invite no longer life, and one from the future none.
func TestInvitesAndMovedClocks(t *testing.T) {
	f := &clocked{fixture: open(t)}
	_, err := f.Invite(t.Context(), Invite{Expires: f.now().Add(time.Hour), Uses: 1, Quota: DefaultQuota()})
	if err != nil {
		t.Fatal(err)
	}
	want := func(when string, open bool) {
		t.Helper()
		if f.Expecting() != open {
			t.Errorf("%s: strangers may knock: %t", when, !open)
		}
		_, _, err := f.Redeem(t.Context(), peerID(t, 7), "x", nil, func([16]byte) bool { return false })
		if all, lerr := f.Invites(); lerr != nil || (len(all) == 1) != open || err == nil {
			t.Errorf("%s: open invites %v, %v, %v", when, all, lerr, err)
		}
	}
	want("when it was made", true)
	f.clock(-time.Minute)
	want("a minute back", true)
	f.clock(-24 * time.Hour)
	want("a day back", false)
	f.clock(24*time.Hour + time.Minute)
	want("put right", true)
	f.clock(365 * 24 * time.Hour)
	want("a year ahead", false)
	f.clock(-365 * 24 * time.Hour)
	want("put right again", true)
}
