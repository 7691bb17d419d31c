package wire

import (
	"io"

	"peercompute/pkg/mesh"
)

// TunnelProtocol is the libp2p protocol ID of a tunnel stream. The gateway opens
// one stream for each connection that it wants to a workload:
//
//	gateway → peer   TunnelHeader, then the connection's bytes
//	peer → gateway   one status byte, then the connection's bytes
//
// The gateway does not wait for the status byte before it sends.
const TunnelProtocol = "/peercompute/tunnel/1"

// The layout of a TunnelHeader, in bytes:
//
//	0       version, 1
//	1..16   workload ID, 16 characters
//	17      length of the label, 1..63
//	18..    label
const (
	tunnelVersion   = 1
	tunnelIDLen     = 16
	tunnelFixedLen  = 1 + tunnelIDLen + 1
	maxTunnelLabel  = 63
	MaxTunnelHeader = tunnelFixedLen + maxTunnelLabel // bytes
)

// TunnelHeader opens a tunnel stream: which workload the gateway wants, and the
// public label it was asked for.
type TunnelHeader struct {
	Workload mesh.WorkloadID
	Label    string // 1 to 63 characters of a-z, 0-9 and -
}

// Append adds the header's bytes to b. It fails with Invalid if the header is
// not one that ReadTunnelHeader accepts.
func (h TunnelHeader) Append(b []byte) ([]byte, error) {
	if err := h.validate(); err != nil {
		return b, err
	}
	b = append(b, tunnelVersion)
	b = append(b, h.Workload...)
	b = append(b, byte(len(h.Label)))
	return append(b, h.Label...), nil
}

// ReadTunnelHeader reads one header and not a byte more. It reads at most
// MaxTunnelHeader bytes; the caller sets the deadline.
func ReadTunnelHeader(r io.Reader) (TunnelHeader, error) {
	var buf [MaxTunnelHeader]byte
	fixed := buf[:tunnelFixedLen]
	if _, err := io.ReadFull(r, fixed); err != nil {
		return TunnelHeader{}, mesh.Errorf(mesh.Invalid, "the tunnel header is cut short").Because(err)
	}
	if fixed[0] != tunnelVersion {
		return TunnelHeader{}, mesh.Errorf(mesh.Unsupported, "tunnel header version %d is not supported", fixed[0])
	}
	n := int(fixed[tunnelFixedLen-1])
	if n == 0 || n > maxTunnelLabel {
		return TunnelHeader{}, mesh.Errorf(mesh.Invalid, "the tunnel header's label has %d characters, not 1 to %d", n, maxTunnelLabel)
	}
	label := buf[tunnelFixedLen : tunnelFixedLen+n]
	if _, err := io.ReadFull(r, label); err != nil {
		return TunnelHeader{}, mesh.Errorf(mesh.Invalid, "the tunnel header is cut short").Because(err)
	}
	h := TunnelHeader{Workload: mesh.WorkloadID(fixed[1 : 1+tunnelIDLen]), Label: string(label)}
	return h, h.validate()
}

func (h TunnelHeader) validate() error {
	if _, err := mesh.ParseWorkloadID(string(h.Workload)); err != nil {
		return err
	}
	if n := len(h.Label); n == 0 || n > maxTunnelLabel {
		return mesh.Errorf(mesh.Invalid, "the tunnel header's label has %d characters, not 1 to %d", n, maxTunnelLabel)
	}
	for i := range len(h.Label) {
		c := h.Label[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return mesh.Errorf(mesh.Invalid, "the tunnel header's label is not a DNS label")
		}
	}
	return nil
}

// TunnelOpen is the status byte of a tunnel that reached its workload. Every
// byte under it is the mesh.Kind of a refusal, so a zero byte refuses.
const TunnelOpen byte = 0x80

// TunnelRefusal is the status byte that refuses a tunnel for the given reason.
func TunnelRefusal(k mesh.Kind) byte {
	if k >= mesh.Kind(TunnelOpen) {
		return byte(mesh.Internal)
	}
	return byte(k)
}

// TunnelAnswer is nil if the status byte says that the tunnel is open, and the
// peer's refusal otherwise.
func TunnelAnswer(status byte) error {
	if status == TunnelOpen {
		return nil
	}
	if status > TunnelOpen {
		return mesh.Errorf(mesh.Invalid, "tunnel status %#x is not known", status)
	}
	return mesh.Errorf(mesh.Kind(status), "the peer refused the tunnel: %s", mesh.Kind(status))
}
