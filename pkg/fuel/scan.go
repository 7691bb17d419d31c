package fuel

import "math"

// fn is what the scan found out about one defined function.
type fn struct {
	typ    uint32
	body   span   // with its local declarations
	locals uint32 // parameters and declared locals
	groups uint32 // declarations of locals
	decls  span   // their bytes, without the count

	events span   // in module.events
	cost   uint32 // of all live operators, each once
	calls  uint32 // of guest functions and through tables
	loops  uint32
	wrap   bool   // a br_if or br_table leaves the function
	reads0 uint32 // operators that read local 0
	bulk   bool   // has operators with a surcharge
	jumps  bool   // has branches, or traps by unreachable
	direct bool   // is called directly by some function

	referred bool // is in a table, or may be by a reference
	outside  bool // is exported or the start function
	first    span // in module.firsts: where it names the first local that is no parameter

	leafCost int32  // of a static leaf: what its caller pays for it; else -1
	outer    uint32 // type at its own index
	takes    bool   // takes the counter and gives it back, see pass.go
	clone    uint32 // of a static leaf: index of its uncharged copy; if takes: of the function that does
}

// event is one operator that the rewriter must look at. The operators before
// it since the previous event are copied as they are: src[from:pos].
type event struct {
	from, pos, end uint32
	cost           uint32 // of the operators in src[from:pos]
	arg            uint32 // branches: depth; calls: function; block, if, else: index of what closes it
	aux            uint32 // see the users: loops, br, br_table, bulk operators
	op             byte
	flags          byte
	tables         byte // block, if: in how many br_tables it is a target (saturates)
	pair           byte // br: length of an "i32.const K; local.set X" right before it
}

const (
	flagDeadBefore = 1 << iota // else, end: not reached from the operator before it
	flagDeadAfter              // end: nothing reaches what follows
	flagHasValues              // block, if: has results; loop: has parameters
	flagHasParams              // block, loop, if: has parameters
	flagThread                 // br: sets the selector of the dispatch loop it jumps to, see thread.go
	flagUnpaired               // loop: may be entered without its selector having just been set
	flagHasInner               // loop: contains another loop
)

// Pseudo-operators of events.
const (
	evPoint = 0xf0 // nothing: splits a long run of plain operators
	evBulk  = 0xf1 // aux holds the sub-opcode, or opMemoryGrow
)

const (
	noEvent = math.MaxUint32
	noLocal = math.MaxUint32
)

// runLength is the greatest cost of plain operators between two events.
const runLength = 4096

// frame is an open block of the function being scanned.
type frame struct {
	event    uint32 // index of the opening event; noEvent for the function itself
	table    uint32 // the latest br_table that names it
	op       byte
	targeted bool // some branch goes to its end
	thenLive bool // if with else: the first arm reaches the end
}

// scanner turns the bodies into events. One is used for all functions in turn.
type scanner struct {
	m      *module
	shapes [256]shape
	events []event
	bulk   bool // bulk operators carry a surcharge
	locals int  // of all functions so far
	firsts []uint32

	// The function being scanned.
	f      *fn
	own    uint32 // its first local that is no parameter, if that may matter; else noLocal
	r      reader
	frames []frame
	loops  []uint32 // events of the open loops
	from   uint32   // of the run since the last event
	cost   uint32   // of that run
	dead   bool     // what comes next cannot be reached
	pair   pairing
}

// scanAll scans every function body in order.
func (m *module) scanAll(surcharge bool) (*scanner, error) {
	code := m.sections[secCode]
	s := &scanner{m: m, shapes: shapes(), bulk: surcharge}
	s.events = make([]event, 0, (code.to-code.from)/6+16)
	for i := range m.funcs {
		f := &m.funcs[i]
		f.events.from = uint32(len(s.events))
		f.first.from = uint32(len(s.firsts))
		if err := s.function(f); err != nil {
			return nil, err
		}
		f.events.to = uint32(len(s.events))
		f.first.to = uint32(len(s.firsts))
	}
	return s, nil
}

func (s *scanner) function(f *fn) error {
	s.f, s.r = f, reader{b: s.m.src[:f.body.to], i: int(f.body.from)}
	r := &s.r
	f.groups = uint32(r.count(2))
	total := uint64(len(s.m.types[f.typ].params))
	f.decls.from = uint32(r.i)
	for range f.groups {
		total += uint64(r.u32())
		if !validType(r.byte()) {
			r.fail()
		}
	}
	if r.bad {
		return malformed("the locals of a function cannot be read")
	}
	if total > MaxLocals {
		return tooLarge("locals in one function", MaxLocals)
	}
	if s.locals += int(total); s.locals > MaxAllLocals {
		return tooLarge("locals in all functions", MaxAllLocals)
	}
	f.decls.to = uint32(r.i)
	f.locals = uint32(total)
	f.leafCost, f.outer = -1, f.typ
	s.own = noLocal
	if n := len(s.m.types[f.typ].params); f.mayTake(n) {
		s.own = uint32(n)
	}
	s.frames = append(s.frames[:0], frame{event: noEvent})
	s.loops = s.loops[:0]
	s.from, s.cost, s.dead, s.pair = uint32(r.i), 0, false, pairing{}
	return s.body()
}

// emit appends an event for the operator that began at pos and was read up to
// the reader's position, and begins the next run behind it.
func (s *scanner) emit(op byte, pos, arg uint32) *event {
	s.events = append(s.events, event{from: s.from, pos: pos, end: uint32(s.r.i), cost: s.cost, op: op, arg: arg})
	s.f.cost += s.cost + 1
	s.from, s.cost = uint32(s.r.i), 0
	return &s.events[len(s.events)-1]
}

// body walks the operators of one function. What cannot be reached is left
// out: no event covers it.
func (s *scanner) body() error {
	for r := &s.r; len(s.frames) > 0; {
		if s.dead {
			if err := s.skipDead(); err != nil {
				return err
			}
			continue
		}
		if !r.more() {
			return malformed("a function body is cut short")
		}
		pos := uint32(r.i)
		op := r.b[r.i]
		r.i++
		switch s.shapes[op] {
		case shapePlain:
			s.cost++
		case shapeIndex:
			r.u32()
			s.cost++
		case shapeMemory:
			r.u32()
			r.u32()
			s.cost++
		case shapeLocal:
			x := r.u32()
			if x >= s.f.locals {
				return malformed("a function names a local that does not exist")
			}
			s.pair.local(op, pos, uint32(r.i), x)
			if x == 0 && op != opLocalSet {
				s.f.reads0++
			}
			if x == s.own {
				s.firsts = append(s.firsts, pos)
			}
			s.cost++
		case shapeControl:
			if err := s.control(op, pos); err != nil {
				return err
			}
		default:
			if err := s.special(op, pos); err != nil {
				return err
			}
		}
		if s.cost >= runLength {
			s.emit(evPoint, uint32(r.i), 0)
		}
	}
	if s.r.bad || s.r.more() {
		return malformed("a function body cannot be read")
	}
	return nil
}

// special reads an operator that costs 1 unless said otherwise and has
// immediates of its own kind.
func (s *scanner) special(op byte, pos uint32) error {
	r := &s.r
	switch op {
	case opNop, opDrop:
		return nil // free
	case opI32Const:
		s.pair.value = uint32(r.s64())
		s.pair.at, s.pair.constEnd = pos, uint32(r.i)
	case opI64Const:
		r.s64()
	case opF32Const:
		r.take(4)
	case opF64Const:
		r.take(8)
	case opGlobalGet, opGlobalSet:
		if r.u32() >= s.m.globals {
			return malformed("a function names a global that does not exist")
		}
	case opSelectTyped:
		s.m.valueTypes(r)
	case opRefNull:
		r.byte()
	case opVector:
		memory, n, ok := vectorShape(r.u32())
		if !ok {
			return unsupported("an unknown vector operator")
		}
		if memory {
			r.u32()
			r.u32()
		}
		r.take(n)
	case opRefFunc:
		x := r.u32()
		if x >= s.m.funcCount() {
			return malformed("a function names a function that does not exist")
		}
		s.m.refer(x)
		s.emit(op, pos, x)
		return nil
	case opMemoryGrow, opMisc:
		sub := r.u32()
		if op == opMemoryGrow {
			sub = opMemoryGrow
		} else if !miscImmediates(r, sub) {
			return malformed("a function has an unknown operator")
		}
		if s.bulk && bulkOperator(sub) {
			s.f.bulk = true
			s.emit(evBulk, pos, 0).aux = sub
			return nil
		}
	default:
		if what := refused(op); what != "" {
			return unsupported(what)
		}
		return malformed("a function has an unknown operator")
	}
	s.cost++
	return nil
}

// miscImmediates reads what follows a sub-opcode behind opMisc.
func miscImmediates(r *reader, sub uint32) bool {
	switch {
	case sub <= 7: // saturating conversions
	case sub == miscMemoryInit || sub == miscMemoryCopy || sub == miscTableInit || sub == miscTableCopy:
		r.u32()
		r.u32()
	case sub <= miscTableFill:
		r.u32()
	default:
		return false
	}
	return true
}
