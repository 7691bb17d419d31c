// Package wire is what crosses the network between nodes: protocol IDs, size
// limits, the signed request and its answer, and the tunnel's header. Changing
// the meaning of a byte takes a new protocol ID or message number; numbers are
// append-only. It opens no sockets and judges nothing but form and signature.
package wire

import (
	"bytes"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// codec is CBOR in core deterministic encoding (RFC 8949 §4.2.1), decoded strictly.
type codec struct {
	enc cbor.EncMode
	dec cbor.DecMode
}

func newCodec() codec {
	eo := cbor.CoreDetEncOptions()
	eo.Time = cbor.TimeRFC3339Nano
	enc, err := eo.EncMode()
	if err != nil {
		panic(err)
	}
	dec, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		UTF8:              cbor.UTF8RejectInvalid,
		MaxNestedLevels:   16,
		MaxArrayElements:  4096,
		MaxMapPairs:       256,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return codec{enc, dec}
}

var strict = newCodec() // immutable after package initialisation

// Marshal encodes v deterministically.
func Marshal(v any) ([]byte, error) { return strict.enc.Marshal(v) }

// Unmarshal decodes data into v, a pointer. It refuses data over limit bytes,
// unknown fields, duplicate keys, trailing bytes, and any encoding that is not
// the one Marshal would make of the result.
func Unmarshal(data []byte, v any, limit int) error {
	if len(data) > limit {
		return fmt.Errorf("%d bytes are over the limit of %d", len(data), limit)
	}
	if err := strict.dec.Unmarshal(data, v); err != nil {
		return err
	}
	again, err := strict.enc.Marshal(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(data, again) {
		return fmt.Errorf("not in deterministic encoding")
	}
	return nil
}
