package wire

import (
	"encoding/binary"
	"io"

	"peercompute/pkg/mesh"
)

// A message on a stream is its length (4 bytes, big-endian) and an envelope.

// WriteMessage sends a message in a single Write.
func WriteMessage(w io.Writer, data []byte) error {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(data)), uint32(len(data)))
	_, err := w.Write(append(b, data...))
	return err
}

// ReadMessage reads a message of at most limit bytes; a longer one is
// mesh.TooLarge, and nothing of it is read.
func ReadMessage(r io.Reader, limit int) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > uint32(limit) {
		return nil, mesh.Errorf(mesh.TooLarge, "message of %d bytes is over the limit of %d", n, limit)
	}
	data := make([]byte, n)
	_, err := io.ReadFull(r, data)
	return data, err
}
