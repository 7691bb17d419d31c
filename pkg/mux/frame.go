package mux

import (
	"encoding/binary"
	"fmt"
)

// A frame is a header of 12 bytes, integers big-endian, and a data frame's payload:
//
//	0     version, always 0
//	1     kind
//	2–3   flags
//	4–7   stream; 0 for pings and goodbyes
//	8–11  data: bytes of payload; window: bytes that may be sent in addition, or
//	      with RST an error code; ping: a value to be sent back; goodbye: a code
const headerBytes = 12

const (
	kindData   = 0
	kindWindow = 1
	kindPing   = 2
	kindGoAway = 3
)

const (
	flagSYN = 1 // opens a stream; asks, in a ping
	flagACK = 2 // accepts a stream; answers, in a ping
	flagFIN = 4 // nothing follows on this stream
	flagRST = 8 // the stream has ended both ways
)

// header is a frame's header.
type header struct {
	kind   byte
	flags  uint16
	stream uint32
	length uint32
}

func (h header) append(b []byte) []byte {
	b = append(b, 0, h.kind)
	b = binary.BigEndian.AppendUint16(b, h.flags)
	b = binary.BigEndian.AppendUint32(b, h.stream)
	return binary.BigEndian.AppendUint32(b, h.length)
}

// parseHeader reads a header from b, which is of headerBytes.
func parseHeader(b []byte) (header, error) {
	if b[0] != 0 {
		return header{}, fmt.Errorf("%w: version %d", ErrProtocol, b[0])
	}
	if b[1] > kindGoAway {
		return header{}, fmt.Errorf("%w: kind %d", ErrProtocol, b[1])
	}
	return header{
		kind:   b[1],
		flags:  binary.BigEndian.Uint16(b[2:]),
		stream: binary.BigEndian.Uint32(b[4:]),
		length: binary.BigEndian.Uint32(b[8:]),
	}, nil
}

// scanner cuts what comes into headers and pieces of payload, however it is cut
// into reads.
type scanner struct {
	part [headerBytes]byte // of a header that is not whole
	have int               // bytes of part
	left uint32            // bytes of payload still to come
}

// next takes one header or piece of payload off the front of b. Neither is there
// if b has ended.
func (c *scanner) next(b []byte) (h header, isHeader bool, piece, rest []byte, err error) {
	if c.left > 0 {
		n := uint32(min(int64(c.left), int64(len(b))))
		c.left -= n
		return h, false, b[:n], b[n:], nil
	}
	whole := b
	if c.have == 0 && len(b) >= headerBytes {
		rest = b[headerBytes:]
	} else {
		n := copy(c.part[c.have:], b)
		c.have += n
		if rest = b[n:]; c.have < headerBytes {
			return h, false, nil, rest, nil
		}
		whole, c.have = c.part[:], 0
	}
	if h, err = parseHeader(whole); err != nil {
		return h, false, nil, nil, err
	}
	if h.kind == kindData {
		c.left = h.length
	}
	return h, true, nil, rest, nil
}
