package mesh

import (
	"crypto/sha256"
	"fmt"
	"path"
	"strings"
)

// VolumeMount is a volume as a container sees it: a directory whose files outlive the
// container. A volume belongs to the owner of the workload and has a fixed size.
type VolumeMount struct {
	Name     string `json:"name" cbor:"1,keyasint"`   // a DNS label, unique per owner on a peer
	Target   string `json:"target" cbor:"2,keyasint"` // the directory, an absolute path inside the container
	ReadOnly bool   `json:"read_only,omitempty" cbor:"3,keyasint,omitempty"`
	Size     int64  `json:"size,omitempty" cbor:"4,keyasint,omitempty"` // bytes; 0 = as it is, and DefaultVolume where it is made
}

// Bounds of volumes.
const (
	MaxMounts     = 8        // volumes of one workload
	MinVolume     = 16 << 20 // bytes; a file system needs some itself
	MaxVolume     = 1 << 40
	DefaultVolume = 1 << 30
	maxTarget     = 256 // characters
)

// VolumeID identifies one volume for ever: 16 characters of lower-case base32. A
// volume that is made again under the same name has another.
type VolumeID string

// NewVolumeID derives the ID of the volume that is made under a name by the request
// from which the ID of a run was derived.
func NewVolumeID(run WorkloadID, name string) VolumeID {
	h := sha256.New()
	fmt.Fprintf(h, "peercompute/volume/1\x00%s\x00%s", run, name)
	return VolumeID(lowerBase32.EncodeToString(h.Sum(nil)[:10]))
}

// ParseVolumeID reads a full volume ID.
func ParseVolumeID(s string) (VolumeID, error) {
	if _, err := ParseWorkloadID(s); err != nil {
		return "", Errorf(Invalid, "%q is not a volume ID", s).WithHint("list volumes with: peerctl volume ls")
	}
	return VolumeID(s), nil
}

// Problem says why the mount cannot be; "" = it can.
func (m VolumeMount) Problem() string {
	switch {
	case strings.HasPrefix(m.Name, "/") || strings.HasPrefix(m.Name, ".") || strings.HasPrefix(m.Name, "~"):
		return fmt.Sprintf("%q is a directory of the host, and those are never mounted; a volume has a name", m.Name)
	case !ValidLabel(m.Name):
		return fmt.Sprintf("the volume's name %q is not a DNS label of at most %d characters (a-z, 0-9, inner -)", m.Name, MaxName)
	case !path.IsAbs(m.Target) || path.Clean(m.Target) != m.Target || len(m.Target) > maxTarget ||
		strings.ContainsFunc(m.Target, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' || r == ',' }):
		return fmt.Sprintf("volume %s cannot be at %q: that is not a plain absolute path", m.Name, m.Target)
	case m.Size != 0 && (m.Size < MinVolume || m.Size > MaxVolume):
		return fmt.Sprintf("volume %s cannot have %d bytes: from 16 MiB to 1 TiB", m.Name, m.Size)
	}
	for _, taken := range []string{"/", "/proc", "/sys", "/dev", "/etc"} {
		if m.Target == taken || taken != "/" && strings.HasPrefix(m.Target, taken+"/") {
			return fmt.Sprintf("volume %s cannot be at %s, which is the container's own", m.Name, m.Target)
		}
	}
	return ""
}

func (s Spec) validateVolumes(say func(string, ...any)) {
	if len(s.Volumes) == 0 {
		return
	}
	if s.Runtime != Container {
		say("only a container has volumes")
	}
	if len(s.Volumes) > MaxMounts {
		say("more than %d volumes", MaxMounts)
		return
	}
	for i, m := range s.Volumes {
		if why := m.Problem(); why != "" {
			say("%s", why)
			continue
		}
		for _, dir := range s.Tmpfs {
			if within(path.Clean(dir), m.Target) {
				say("the writable directory %q would hide what is in volume %s", clip(dir, 80), m.Name)
			}
		}
		for _, other := range s.Volumes[:i] {
			switch {
			case other.Name == m.Name:
				say("volume %s is mounted twice", m.Name)
			case within(m.Target, other.Target) || within(other.Target, m.Target):
				say("volumes %s and %s lie in each other (%s, %s)", other.Name, m.Name, other.Target, m.Target)
			}
		}
	}
}

// within reports whether the clean path p is dir or below it.
func within(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

// ShareVolume reports whether two specs of one owner name a volume that both use.
func ShareVolume(a, b Spec) bool {
	for _, m := range a.Volumes {
		for _, o := range b.Volumes {
			if m.Name == o.Name {
				return true
			}
		}
	}
	return false
}
