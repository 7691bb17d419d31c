package member

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/sys/unix"

	"peercompute/pkg/control"
	"peercompute/pkg/identity"
)

// Below these a machine is short of something.
const (
	littleDisk  = 1 << 30 // bytes free where the state is
	tooFewDisk  = 64 << 20
	fewFiles    = 4096 // descriptors
	aheadOfTime = 2 * time.Second
)

// Doctor looks at the node, its machine and its peers.
func (a *api) Doctor(ctx context.Context) ([]control.Check, error) {
	out := append(a.m.Checkup(), a.m.checkAddresses(), a.checkPeers())
	if a.hooks.Checkup != nil {
		out = append(out, a.hooks.Checkup(ctx)...)
	}
	return out, nil
}

// Checkup looks at what can be seen without a network.
func (m *Member) Checkup() []control.Check {
	return []control.Check{checkFiles(m.Home), checkDisk(m.Home), checkLimits(), m.checkState(), m.checkClock(), m.checkTrust()}
}

func ok(name, format string, args ...any) control.Check {
	return control.Check{Name: name, State: control.CheckOK, Detail: fmt.Sprintf(format, args...)}
}

func warning(name, fix, format string, args ...any) control.Check {
	return control.Check{Name: name, State: control.CheckWarning, Detail: fmt.Sprintf(format, args...), Fix: fix}
}

func problem(name, fix, format string, args ...any) control.Check {
	return control.Check{Name: name, State: control.CheckProblem, Detail: fmt.Sprintf(format, args...), Fix: fix}
}

// checkFiles is whether others on this machine can read the home.
func checkFiles(home string) control.Check {
	const name = "home"
	for _, path := range []string{home, filepath.Join(home, identity.KeyFile)} {
		info, err := os.Stat(path)
		if err != nil {
			return problem(name, "put it back from a backup: peerd restore", "%s cannot be read: %v", path, err)
		}
		if open := info.Mode().Perm() & 0o077; open != 0 {
			return problem(name, fmt.Sprintf("chmod go= %s", path), "others can read or write %s (%s)", path, info.Mode().Perm())
		}
	}
	return ok(name, "%s is this user's alone", home)
}

func checkDisk(home string) control.Check {
	const name, fix = "disk", "make room there, or move the home directory; nothing is acknowledged that is not on disk"
	var s unix.Statfs_t
	if err := unix.Statfs(home, &s); err != nil {
		return warning(name, "look at the file system of the home directory", "its free space cannot be told: %v", err)
	}
	free := s.Bavail * uint64(s.Bsize)
	text := fmt.Sprintf("%.1f GiB free for the state, modules and inputs", float64(free)/(1<<30))
	switch {
	case free < tooFewDisk:
		return problem(name, fix, "%s", text)
	case free < littleDisk:
		return warning(name, fix, "%s", text)
	}
	return ok(name, "%s", text)
}

func checkLimits() control.Check {
	const name = "open files"
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return warning(name, "look at ulimit -n", "the limit cannot be told: %v", err)
	}
	if l.Cur < fewFiles {
		return warning(name, "raise it: ulimit -n 65536, or LimitNOFILE= in the service", "%d at most; each connection takes one", l.Cur)
	}
	return ok(name, "up to %d", l.Cur)
}

func (m *Member) checkState() control.Check {
	const name = "state"
	if m.Store.Old() != nil {
		return warning(name, "look through peerctl peers ls: peers removed since may be trusted again", "it is not the latest; it was accepted with --old-state")
	}
	if n := len(m.Alarms.All()); n > 0 {
		return warning(name, "peerctl alarms", "%d alarms wait for a person", n)
	}
	return ok(name, "whole, the latest, and no alarm")
}

// checkClock compares this machine's clock with what it was and with the peers'.
func (m *Member) checkClock() control.Check {
	const name, fix = "clock", "set it right, for example: timedatectl set-ntp true"
	if ahead := m.Gate.Now().Sub(m.Now()); ahead > aheadOfTime {
		return warning(name, fix, "it was %s ahead once and requests are judged by that time until it is caught up with; peers answer by challenge meanwhile", ahead.Round(time.Second))
	}
	alive, off := 0, 0
	for _, g := range m.Trust.Live() {
		if l := m.life(g.Peer); l.Connected {
			alive++
			if l.ClockOff != 0 {
				off++
			}
		}
	}
	if off > 0 && 2*off >= alive {
		return warning(name, fix, "it is over a minute away from %d of %d peers' clocks", off, alive)
	}
	return ok(name, "%s, like those of %d peers", m.Now().UTC().Format(time.RFC3339), alive)
}

func (m *Member) checkTrust() control.Check {
	const name = "trust"
	if _, locked := m.Trust.Locked(); locked {
		return warning(name, "peerctl unlock", "locked down: nobody is allowed anything")
	}
	n := len(m.Trust.Live())
	if n == 0 {
		return warning(name, "peerctl peers invite, or peerctl peers join TOKEN", "nobody is trusted yet")
	}
	return ok(name, "%d peers, the log is whole", n)
}

func (m *Member) checkAddresses() control.Check {
	const name = "addresses"
	far := 0
	for _, s := range m.Net.Addrs() {
		if a, err := ma.NewMultiaddr(s); err == nil {
			if addr, err := manet.ToIP(a); err == nil && !net.IP.IsLoopback(addr) {
				far++
			}
		}
	}
	if far == 0 {
		return warning(name, "start with --listen /ip4/0.0.0.0/tcp/4001, unless only this machine is meant", "no other machine can dial this one: it listens on loopback alone")
	}
	return ok(name, "%d that other machines can dial, as far as networks between let them", far)
}

func (a *api) checkPeers() control.Check {
	const name = "peers"
	var away []string
	all := a.m.Trust.Live()
	for _, g := range all {
		if l := a.m.life(g.Peer); !l.Connected {
			away = append(away, g.Name)
		}
	}
	if len(away) > 0 {
		return warning(name, "is peerd running there, does it trust this machine, and is its address right? peerctl peers show NAME", "%d of %d are not connected: %s", len(away), len(all), few(away))
	}
	return ok(name, "%d connected", len(all))
}

// few names the first of many.
func few(names []string) string {
	const most = 5
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}
