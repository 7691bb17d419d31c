package fuel

// ExternKind is what an import or export is.
type ExternKind byte

// The kinds of imports and exports.
const (
	ExternFunc   ExternKind = 0
	ExternTable  ExternKind = 1
	ExternMemory ExternKind = 2
	ExternGlobal ExternKind = 3
)

// Import is something that a guest wants from its host.
type Import struct {
	Module, Name string
	Kind         ExternKind
}

// Export is something that a guest offers to its host.
type Export struct {
	Name  string
	Kind  ExternKind
	index uint32
}

// Module is a metered module.
type Module struct {
	Code    []byte   // the metered binary
	Imports []Import // the guest's own; Code has the refill import besides
	Exports []Export // the guest's own; Code has the counter besides
	Start   bool     // a start function runs when the module is instantiated
}

// Optimisation is a set of optimisations.
type Optimisation uint32

// The optimisations. None of them changes a count.
const (
	LocalCounter  Optimisation = 1 << iota // keep the counter in a local in functions with loops
	ColdRefill                             // keep the call of the refill out of loops and behind the code
	Potentials                             // carry what is pending over branches
	StaticLeaves                           // let callers pay for functions of constant cost
	SunkEntry                              // test before calls in place of at the entry, where there are few
	Threading                              // jump directly where a dispatch loop would lead
	Unrolling                              // unroll small innermost loops
	InvertedLoops                          // leave a loop by its last branch, in place of repeating it; needs ColdRefill unless unrolled
	PassedCounter                          // pass the counter to functions that are only called directly, and back

	AllOptimisations = 1<<iota - 1
)

// Options of a rewrite. The zero value is the schedule as it is, with all
// optimisations; it is what peers use.
type Options struct {
	Parity  bool         // leave the surcharges out, so that counts equal wasmtime's
	Disable Optimisation // those to leave out
}

func (o Options) on(x Optimisation) bool { return o.Disable&x == 0 }

// Instrument rewrites a module so that it is metered under Schedule.
//
// It needs no validation before: each count, index, immediate and block is
// checked here, so that what comes out names nothing of metering's and asks
// for no more than its size allows. Operand types are not checked; a module
// with wrong ones is refused by the runtime that is to run the result. (Do not
// let wazero decode a stranger's module first: it allocates what a vector's
// length announces, before it looks whether the bytes are there.) Time and
// memory are linear in the size of the module.
//
// Errors are mesh errors: Invalid for malformed modules and clashing names,
// Unsupported for what goes beyond WebAssembly 2.0, TooLarge.
func Instrument(code []byte, o Options) (*Module, error) {
	m, err := decode(code)
	if err != nil {
		return nil, err
	}
	s, err := m.scanAll(!o.Parity)
	if err != nil {
		return nil, err
	}
	return &Module{Code: m.encode(s, o), Imports: m.imports, Exports: m.exports, Start: m.has[secStart]}, nil
}
