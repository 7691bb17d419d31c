// Package frame is the framing that Peer Compute's own streams share: a type
// byte, a 4-byte big-endian length of at most Max, and the payload. It gives no
// meaning to types.
package frame

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Max bounds one frame's payload, in bytes.
const Max = 64 << 10

const headerLen = 5

// Write sends one frame in a single Write.
func Write(w io.Writer, typ byte, payload []byte) error {
	if len(payload) > Max {
		return fmt.Errorf("frame of %d bytes is over %d", len(payload), Max)
	}
	buf := make([]byte, headerLen+len(payload))
	buf[0] = typ
	binary.BigEndian.PutUint32(buf[1:], uint32(len(payload)))
	copy(buf[headerLen:], payload)
	_, err := w.Write(buf)
	return err
}

// Read reads one frame. io.EOF means that the stream ended between frames.
func Read(r io.Reader) (typ byte, payload []byte, err error) {
	var h [headerLen]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(h[1:])
	if n > Max {
		return 0, nil, fmt.Errorf("frame of %d bytes is over %d", n, Max)
	}
	payload = make([]byte, n)
	if _, err := io.ReadFull(r, payload); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return h[0], payload, nil
}

// Copy sends all of r as frames of one type, then an empty one for its end.
func Copy(w io.Writer, typ byte, r io.Reader) error {
	buf := make([]byte, Max)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := Write(w, typ, buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return Write(w, typ, nil)
		}
		if err != nil {
			return err
		}
	}
}

// Writer is an io.Writer whose writes become frames of one type. It adds no
// buffering; the caller serialises writers that share w.
type Writer struct {
	W    io.Writer
	Type byte
}

func (w Writer) Write(p []byte) (int, error) {
	n := 0
	for len(p) > 0 {
		part := p[:min(len(p), Max)]
		if err := Write(w.W, w.Type, part); err != nil {
			return n, err
		}
		n += len(part)
		p = p[len(part):]
	}
	return n, nil
}
