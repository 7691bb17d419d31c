package driver

import (
	"encoding/binary"
	"errors"
	"sync"
)

// Observation is a kind of thing that a run learns of the world outside it and
// that could be different the next time. Numbers are append-only: they are part of
// records that travel.
type Observation byte

// The kinds of observation.
const (
	ObservedInput   Observation = 1 // how much a read of standard input gave, where it was less than asked for
	ObservedClock   Observation = 2 // the real time, where that is granted
	ObservedNetwork Observation = 3 // what came from the network, where that is granted
	ObservedFile    Observation = 4 // what a file held that the run did not write itself
	lastObservation             = ObservedFile
)

// MaxRecord bounds the observations of one run, in bytes. A run that observes more
// goes on, and cannot be repeated exactly.
const MaxRecord = 1 << 20

// ErrDiverged says that a repeated run asks for what the first one never saw.
var ErrDiverged = errors.New("the run departs from its record")

// Record is what a run observed, kind by kind in order: written while a job runs
// for the first time, read when it is repeated. A capability that lets the world in
// must pass every answer through Observe; then the run can be repeated elsewhere.
// The nil Record keeps nothing. It may be used by several goroutines.
type Record struct {
	limit int

	mu     sync.Mutex
	log    []byte
	cut    bool
	replay map[Observation][][]byte // what is left to give again; nil while recording
}

// NewRecord begins an empty record of at most limit bytes.
func NewRecord(limit int) *Record { return &Record{limit: limit} }

// The encoding of a record: for each observation its kind, its length as an
// unsigned varint, and its bytes.

var errRecord = errors.New("the record of observations is malformed")

// Replay reads a record that Bytes gave, to be given again by Observe.
func Replay(log []byte) (*Record, error) {
	r := &Record{replay: map[Observation][][]byte{}}
	for len(log) > 0 {
		kind := Observation(log[0])
		n, width := binary.Uvarint(log[1:])
		if kind == 0 || kind > lastObservation || width <= 0 || n > uint64(len(log)-1-width) {
			return nil, errRecord
		}
		rest := log[1+width:]
		r.replay[kind] = append(r.replay[kind], rest[:n])
		log = rest[n:]
	}
	return r, nil
}

// Observe returns what the run is to see: what now gives, or in a repeated run what
// it gave the first time; then now is not called. The error is ErrDiverged.
func (r *Record) Observe(kind Observation, now func() []byte) ([]byte, error) {
	if r == nil {
		return now(), nil
	}
	r.mu.Lock()
	if r.replay != nil {
		defer r.mu.Unlock()
		left := r.replay[kind]
		if len(left) == 0 {
			return nil, ErrDiverged
		}
		r.replay[kind] = left[1:]
		return left[0], nil
	}
	r.mu.Unlock()
	seen := now() // may wait: the lock is not held
	r.mu.Lock()
	defer r.mu.Unlock()
	r.add(kind, seen)
	return seen, nil
}

func (r *Record) add(kind Observation, seen []byte) {
	if r.cut || len(r.log)+1+binary.MaxVarintLen64+len(seen) > r.limit {
		r.cut = true
		return
	}
	r.log = append(r.log, byte(kind))
	r.log = binary.AppendUvarint(r.log, uint64(len(seen)))
	r.log = append(r.log, seen...)
}

// Next is what a repeated run will see next of a kind, without taking it; false
// while recording, or if there is none.
func (r *Record) Next(kind Observation) ([]byte, bool) {
	if r == nil {
		return nil, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	left := r.replay[kind]
	if len(left) == 0 {
		return nil, false
	}
	return left[0], true
}

// Replaying reports whether this is a record that is given again.
func (r *Record) Replaying() bool { return r != nil && r.replay != nil }

// Bytes is the record so far. complete is false if it reached its limit: then the
// rest is missing.
func (r *Record) Bytes() (log []byte, complete bool) {
	if r == nil {
		return nil, true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log, !r.cut
}
