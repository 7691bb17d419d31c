package fuel

// Schedule names the rules below. A change to what any program is charged is a
// new schedule with a new name.
//
// # Units
//
// One unit is charged for each executed operator, except that nop, drop,
// block, loop, else, end, return and unreachable are free. One more unit is
// charged for each entry of a guest function, also of the start function and
// of one that the host calls. A host function has no entry charge, and neither
// has an exported import that the host calls.
//
// Operators that touch a length given at run time pay for that length as well,
// before they run, whether they then succeed, fail or trap:
//
//	memory.fill, memory.copy, memory.init    1 unit for each 8 bytes, rounded down
//	memory.grow                              8192 units for each page
//	table.fill, table.copy, table.init       1 unit for each element
//	table.grow                               1 unit for each element
//
// A memory.grow by over 65,536 pages and a table.grow by over 2^27 elements
// cannot succeed and pay no surcharge. Options.Parity leaves all surcharges out;
// counts are then those of wasmtime 39, to the unit.
//
// # When the count is exact
//
// The counter agrees with the rules whenever the host can look: inside each
// call of a host function (the call operator included), and after an exported
// function has returned. It depends neither on the size of a slice nor on
// which optimisations are on.
//
// At a trap the count is what had been paid and written back by then. Functions
// keep the counter to themselves, and pass it among them, up to the next refill,
// host call, call through a table or return to the host; what they paid since is
// not in it: less than a slice. The count at a trap is a function of the module,
// its input, the budget and the options, so it is the same on each machine and
// under the compiler and the interpreter. Counts at a trap are comparable only
// between runs with the same options and the same version of this package.
//
// # When a guest is stopped
//
// A guest that uses exactly its budget ends well; one that uses more is out of
// fuel. The host decides that at three places: when the guest asks for a
// refill, at the beginning of each host function, and when the guest has ended.
// So nothing that a guest does beyond its budget can be seen from outside, and
// whether a run succeeds, and which host calls it made, follows from the rules
// alone.
//
// How soon it is stopped is bounded. Tests of the counter stand at the head of
// each loop, on each path to a call of a guest function (static leaves, of at
// most LeafLimit units, aside), behind each surcharge and before the work that
// it pays for, and wherever a path without one would cost over MaxStretch
// units. So a guest overruns its budget by at most MaxStretch + LeafLimit units
// and, while calls return, by ReturnStretch units for each frame that it leaves
// on the way to the next test. The overrun is not billed: Meter reports the
// budget.
//
// # What a guest sees
//
// Nothing: the counter is a global without a name and with an index that no
// operator of a valid guest has. A module that exports or imports a name with
// the reserved prefix is refused.
const Schedule = "fuel/1"

// Bounds of the schedule, in units. They decide where a guest is stopped, so
// they are part of it.
const (
	// Slice is how many units are granted at a time.
	Slice = 1_000_000
	// MaxStretch is the greatest cost of a path within one function between
	// two tests of the counter.
	MaxStretch = 16_384
	// ReturnStretch is the greatest cost of the path from the last test in a
	// function to its return, not counting what its callees leave untested.
	ReturnStretch = 256
	// LeafLimit is the greatest cost of a function without any test.
	LeafLimit = 256
)

// Names that a metered module adds to a guest's own.
const (
	// RefillModule and RefillName are the one import that metering adds: a
	// function without parameters and results, called when the counter has
	// dropped below zero. The host asks its Meter and sets the counter anew,
	// or ends the guest by a panic with an error of its own.
	RefillModule = reservedPrefix + "/1"
	RefillName   = "refill"
	// CounterExport is the exported mutable i64 global that holds how many
	// units are left of those granted so far.
	CounterExport = reservedPrefix + "/1/counter"

	reservedPrefix = "peercompute:fuel"
)

// Bounds of a module; what goes beyond is refused as too large.
const (
	MaxModuleSize = 64 << 20 // bytes
	MaxFunctions  = 1 << 20  // defined functions
	MaxNesting    = 1 << 17  // blocks open at once
	MaxLocals     = 50_000   // of one function, parameters included
	MaxAllLocals  = 16 << 20 // of all functions together
)

// Bounds of what memory.grow and table.grow can do at all.
const (
	maxPages    = 1 << 16
	maxElements = 1 << 27
)

// bulkOperator reports whether an operator behind opMisc, or opMemoryGrow, has
// a surcharge.
func bulkOperator(sub uint32) bool {
	switch sub {
	case opMemoryGrow, miscMemoryInit, miscMemoryCopy, miscMemoryFill, miscTableInit, miscTableCopy, miscTableGrow, miscTableFill:
		return true
	}
	return false
}
