package wasm

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash"
	"io"

	"peercompute/pkg/driver"
)

// input is the standard input of a job. It hashes what the program reads, and makes
// how much each read gives the same when the run is repeated: what a program does
// may depend on it, and its fuel always does.
type input struct {
	r      waitingReader
	whole  bool // all of it is there: reads give as much as was asked for
	record *driver.Record

	full uint64 // reads since the last short one that gave all that was asked for
	sum  hash.Hash
	size int64
}

func newInput(r io.Reader, m *meter, whole bool, record *driver.Record) *input {
	return &input{r: waitingReader{r, m}, whole: whole, record: record, sum: sha256.New()}
}

// digest is that of what was read.
func (in *input) digest() string { return "sha256:" + hex.EncodeToString(in.sum.Sum(nil)) }

// Read implements io.Reader.
func (in *input) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	var n int
	var err error
	switch {
	case in.record.Replaying():
		n, err = in.again(p)
	case in.whole:
		n, err = in.fill(p)
	default:
		n, err = in.some(p)
	}
	in.sum.Write(p[:n])
	in.size += int64(n)
	return n, err
}

// fill reads as much as fits, or all that is left.
func (in *input) fill(p []byte) (int, error) {
	n, err := io.ReadFull(in.r, p)
	if errors.Is(err, io.ErrUnexpectedEOF) && n > 0 {
		err = nil
	}
	return n, err
}

// some reads what is there and observes how much that was. An entry says how many
// reads were full since the last one, and what this one gave.
func (in *input) some(p []byte) (int, error) {
	n, err := in.r.Read(p)
	switch {
	case n == len(p):
		in.full++
	case n > 0:
		entry := binary.AppendUvarint(binary.AppendUvarint(nil, in.full), uint64(n))
		in.full = 0
		_, _ = in.record.Observe(driver.ObservedInput, func() []byte { return entry }) // fails only in a replay
	}
	return n, err
}

// again reads as much as the first run got from the same read.
func (in *input) again(p []byte) (int, error) {
	entry, ok := in.record.Next(driver.ObservedInput)
	if !ok {
		return in.fill(p)
	}
	full, w := binary.Uvarint(entry)
	if w <= 0 {
		in.r.m.interrupt(driver.ErrDiverged)
	}
	if in.full < full {
		in.full++
		return in.fill(p)
	}
	n, w := binary.Uvarint(entry[w:])
	if w <= 0 || n == 0 || n > uint64(len(p)) {
		in.r.m.interrupt(driver.ErrDiverged)
	}
	in.full = 0
	_, _ = in.record.Observe(driver.ObservedInput, nil) // it is there: Next has just said so
	return in.fill(p[:n])
}
