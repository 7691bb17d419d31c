package control

import (
	"encoding/binary"
	"fmt"
	"io"
)

// UpgradeJob is the protocol name of POST /v1/run after the upgrade. Each frame
// is: type (1 byte), length (4 bytes, big-endian, at most MaxFrame), payload.
const UpgradeJob = "peercompute-job"

// MaxFrame bounds one frame's payload, in bytes.
const MaxFrame = 64 << 10

// The frame types of a job. An empty FrameStdin means end of input.
const (
	FrameStdin  byte = 0
	FrameStdout byte = 1
	FrameStderr byte = 2
	FrameExit   byte = 3 // JSON mesh.Exit; the last frame
	FrameError  byte = 4 // JSON Error; the last frame
)

// WriteFrame sends one frame in a single Write.
func WriteFrame(w io.Writer, typ byte, payload []byte) error {
	if len(payload) > MaxFrame {
		return fmt.Errorf("frame of %d bytes is over %d", len(payload), MaxFrame)
	}
	buf := make([]byte, 5+len(payload))
	buf[0] = typ
	binary.BigEndian.PutUint32(buf[1:], uint32(len(payload)))
	copy(buf[5:], payload)
	_, err := w.Write(buf)
	return err
}

// ReadFrame reads one frame.
func ReadFrame(r io.Reader) (typ byte, payload []byte, err error) {
	var h [5]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(h[1:])
	if n > MaxFrame {
		return 0, nil, fmt.Errorf("frame of %d bytes is over %d", n, MaxFrame)
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(r, payload)
	return h[0], payload, err
}

// CopyFrames sends all of r as frames of one type, then an empty one.
func CopyFrames(w io.Writer, typ byte, r io.Reader) error {
	buf := make([]byte, MaxFrame)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := WriteFrame(w, typ, buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return WriteFrame(w, typ, nil)
		}
		if err != nil {
			return err
		}
	}
}
