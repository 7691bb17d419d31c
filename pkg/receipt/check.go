package receipt

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"strings"

	"peercompute/pkg/mesh"
	"peercompute/pkg/wire"
)

// Tally counts and hashes a stream as it passes. It is an io.Writer that never fails.
type Tally struct {
	sum  hash.Hash
	size uint64
}

// NewTally begins one.
func NewTally() *Tally { return &Tally{sum: sha256.New()} }

// Write implements io.Writer.
func (t *Tally) Write(p []byte) (int, error) {
	t.sum.Write(p)
	t.size += uint64(len(p))
	return len(p), nil
}

// Digest is that of what passed so far.
func (t *Tally) Digest() wire.Digest { return wire.Digest(t.sum.Sum(nil)) }

// Size is how much passed, in bytes.
func (t *Tally) Size() uint64 { return t.size }

// DigestOf is the digest of bytes.
func DigestOf(b []byte) wire.Digest { return sha256.Sum256(b) }

// Received is what the asker of a run sent and received, to hold the receipt against.
type Received struct {
	Runner, Asker mesh.PeerID
	Request       wire.Digest
	Module, Spec  wire.Digest
	Seed          *wire.Digest // nil = left to the runner
	Whole, Repeat bool
	// Input is the digest of the first so many bytes of what was sent; false if that
	// much was not kept, or not even sent.
	Input       func(size uint64) (digest wire.Digest, known bool)
	Sent        uint64 // bytes of input in all
	Done        bool
	Exit        mesh.Exit
	Output, Log *Tally // nil = not received
	Record      []byte
}

// Flaw says in what a receipt contradicts what was sent and received; "" if in nothing.
func (e Received) Flaw(r *wire.Receipt) string {
	var bad []string
	wrong := func(is bool, what string) {
		if is {
			bad = append(bad, what)
		}
	}
	wrong(r.Runner != e.Runner, "another runner")
	wrong(r.Asker != e.Asker, "another asker")
	wrong(r.Request != e.Request, "another request")
	wrong(r.Module != e.Module, "another module")
	wrong(r.Spec != e.Spec, "other arguments, environment or limits")
	wrong(e.Seed != nil && r.Seed != *e.Seed, "another seed")
	wrong(r.Whole != e.Whole || r.Repeat != e.Repeat, "another way of reading its input")
	switch digest, known := e.Input(r.InputSize); {
	case r.InputSize > e.Sent:
		bad = append(bad, fmt.Sprintf("%d bytes of input, of which %d were sent", r.InputSize, e.Sent))
	case known && digest != r.Input:
		bad = append(bad, "another input")
	}
	if e.Output != nil {
		if flaw := e.FlawInStreams(r); flaw != "" {
			bad = append(bad, flaw)
		}
	}
	wrong(r.Code != e.Exit.Code || r.Kind != e.Exit.Kind, "another end than was reported")
	wrong(r.Fuel != e.Exit.Fuel || r.PeakMemory != uint64(e.Exit.PeakMemory), "another use of fuel or memory than was reported")
	return strings.Join(bad, ", ")
}

// FlawInStreams is Flaw for what the run wrote and observed alone.
func (e Received) FlawInStreams(r *wire.Receipt) string {
	var bad []string
	if r.Output != e.Output.Digest() || r.OutputSize != e.Output.Size() {
		bad = append(bad, "another output than was sent")
	}
	if r.Log != e.Log.Digest() || r.LogSize != e.Log.Size() {
		bad = append(bad, "another log than was sent")
	}
	if !r.Repeat && (r.Record != DigestOf(e.Record) || r.RecordSize != uint64(len(e.Record))) {
		bad = append(bad, "another record of observations than was sent")
	}
	return strings.Join(bad, ", ")
}

// Differences lists in what two runs of the same job came out differently; empty if
// in nothing.
func Differences(a, b *wire.Receipt) []string {
	var out []string
	say := func(differs bool, what string, x, y any) {
		if differs {
			out = append(out, fmt.Sprintf("%s %v, not %v", what, y, x))
		}
	}
	say(a.Module != b.Module, "module", a.Module, b.Module)
	say(a.Spec != b.Spec, "spec", a.Spec, b.Spec)
	say(a.Seed != b.Seed, "seed", a.Seed, b.Seed)
	say(a.Input != b.Input, "input read", a.Input, b.Input)
	say(a.Output != b.Output, "output", a.Output, b.Output)
	say(a.Log != b.Log, "log", a.Log, b.Log)
	say(a.Code != b.Code, "exit", a.Code, b.Code)
	say(a.Kind != b.Kind, "end", EndOf(a), EndOf(b))
	say(a.Schedule != b.Schedule, "fuel schedule", a.Schedule, b.Schedule)
	say(a.Fuel != b.Fuel, "fuel", a.Fuel, b.Fuel)
	say(a.PeakMemory != b.PeakMemory, "peak memory", a.PeakMemory, b.PeakMemory)
	return out
}

// EndOf is how a run ended, in a word or two.
func EndOf(r *wire.Receipt) string {
	if r.Kind == mesh.Internal {
		return "by itself"
	}
	return r.Kind.String()
}

// Repeatable says why a run cannot be repeated so that equal results can be
// expected; nil if it can.
func Repeatable(r *wire.Receipt) error {
	switch r.Kind {
	case mesh.Internal, mesh.Trap, mesh.OutOfFuel, mesh.OutOfMemory:
	default:
		return mesh.Errorf(mesh.Invalid, "the run was ended from outside (%s), which does not follow from what it was given", r.Kind).
			WithHint("repeat a run that ended by itself; give it more --timeout if that is what it lacked")
	}
	if r.Cut {
		return mesh.Errorf(mesh.Invalid, "the run observed more of the outside than was recorded").
			WithHint("give it its input as a file, and fewer capabilities")
	}
	return nil
}
