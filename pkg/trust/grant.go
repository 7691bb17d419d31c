// Package trust owns who may do what on this machine: the grants of peers, kept
// as a hash-chained, fsynced log in the state file. It never touches the network.
package trust

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"peercompute/pkg/mesh"
)

// Allow is a set of permissions. The zero value allows nothing.
type Allow uint8

// The permissions.
const (
	Observe   Allow = 1 << iota // see what this machine offers
	Deploy                      // run workloads here
	Migrate                     // move durable agents here
	Route                       // this gateway may open tunnels to published workloads here
	Publish                     // on a gateway: may claim public names
	Exec                        // may run programs inside its own containers here
	allAllows = Observe | Deploy | Migrate | Route | Publish | Exec
)

var allowNames = []struct {
	bit  Allow
	name string
}{{Observe, "observe"}, {Deploy, "deploy"}, {Migrate, "migrate"}, {Route, "route"}, {Publish, "publish"}, {Exec, "exec"}}

// Has reports whether every permission of want is in a.
func (a Allow) Has(want Allow) bool { return want != 0 && a&want == want }

// Names lists the permissions in the set, sorted.
func (a Allow) Names() []string {
	out := []string{}
	for _, n := range allowNames {
		if a&n.bit != 0 {
			out = append(out, n.name)
		}
	}
	slices.Sort(out)
	return out
}

// ParseAllow reads a list of permissions.
func ParseAllow(names []string) (Allow, error) {
	var a Allow
next:
	for _, name := range names {
		for _, n := range allowNames {
			if n.name == name {
				a |= n.bit
				continue next
			}
		}
		return 0, mesh.Errorf(mesh.Invalid, "%q is not a permission", name).
			WithHint("the permissions are: observe, deploy, migrate, route, publish, exec")
	}
	return a, nil
}

// MarshalJSON writes the set as a list of names.
func (a Allow) MarshalJSON() ([]byte, error) { return json.Marshal(a.Names()) }

// UnmarshalJSON reads a list of names.
func (a *Allow) UnmarshalJSON(b []byte) error {
	var names []string
	if err := json.Unmarshal(b, &names); err != nil {
		return err
	}
	v, err := ParseAllow(names)
	*a = v
	return err
}

// Grant is one peer on the trust list. The zero value denies everything.
type Grant struct {
	Peer  mesh.PeerID `json:"peer"`
	Name  string      `json:"name"`
	Addrs []string    `json:"addrs,omitempty"`
	Allow Allow       `json:"allow"`
	Quota Quota       `json:"quota"`
	Added time.Time   `json:"added"`
	// Until is when the grant ends; zero = never. From then on it denies, and the
	// entry stays so that it can be renewed.
	Until time.Time `json:"until,omitzero"`
	Ended bool      `json:"ended,omitempty"` // it ended for good: no clock brings it back

	Rotation uint64      `json:"rotation,omitempty"` // the number of the last rotation of its key that was taken
	Origin   mesh.PeerID `json:"origin,omitempty"`   // its first key that was known here; empty = Peer
}

// First is the first key by which the peer was known here. It names the peer in what
// must stay the same when keys change, such as public names.
func (g Grant) First() mesh.PeerID {
	if g.Origin != "" {
		return g.Origin
	}
	return g.Peer
}

// Expired reports whether the grant has ended at now.
func (g Grant) Expired(now time.Time) bool {
	return g.Ended || !g.Until.IsZero() && !now.Before(g.Until)
}

func (g Grant) validate() error {
	var bad []string
	if !mesh.ValidLabel(g.Name) || g.Name == "self" {
		bad = append(bad, fmt.Sprintf("%q cannot be a peer's name (a-z, 0-9, inner -, at most %d characters, not \"self\")", g.Name, mesh.MaxName))
	}
	bad = append(bad, g.Quota.problems()...)
	if g.Allow&^allAllows != 0 {
		bad = append(bad, "unknown permissions")
	}
	if len(g.Addrs) > 16 {
		bad = append(bad, "more than 16 addresses")
	}
	if len(bad) > 0 {
		return mesh.Errorf(mesh.Invalid, "%s", strings.Join(bad, "; "))
	}
	return nil
}
