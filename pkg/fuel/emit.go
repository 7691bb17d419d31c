package fuel

// emitter writes the bodies of the metered module, one after the other.
type emitter struct {
	m      *module
	src    []byte
	events []event
	firsts []uint32
	out    []byte

	counter uint32 // index of the hidden global
	refill  uint32 // index of the refill import
	helper  uint32 // index of the function that refills a local counter
	types   *typeTable

	localCounter, coldRefill, invertedLoops, potentials, sunkEntry, threading, unrolling bool

	// The function being emitted.
	f      *fn
	st     state
	labels []label
	ways   []way
	depth  int32  // blocks open in the output
	local  bool   // the counter is in local c
	ahead  bool   // the test at the entry is out of line
	c      uint32 // that local
	first  uint32 // local in place of the one whose index the counter has taken, see pass.go
	length uint32 // local for the length of a bulk operator
}

// index maps a function index of the input to one of the output: the refill
// import comes right after the guest's own imports.
func (e *emitter) index(f uint32) uint32 {
	if f >= uint32(len(e.m.importFuncs)) {
		f++
	}
	return f
}

// function emits one metered body, with its size.
func (e *emitter) function(f *fn) {
	e.f, e.depth, e.ahead, e.st = f, 0, false, state{pend: 1, own: 1, all: 1}
	e.labels, e.ways = e.labels[:0], e.ways[:0]
	e.local = f.takes || f.loops > 0 && e.localCounter
	var start int
	e.out, start = reserve(e.out)
	e.locals(f)
	if e.local && !f.takes {
		e.getGlobal()
		e.setCounter()
	}
	t := e.m.types[f.typ]
	if sunk := e.sunkEntry && f.loops > 0 && f.calls <= maxSunk; f.calls > 0 && !sunk && e.events[f.events.from].op != opLoop {
		e.settle()
		if e.ahead = e.coldRefill; e.ahead {
			e.testAhead()
		} else {
			e.test()
		}
	}
	if f.wrap {
		e.out = append(e.out, opBlock)
		e.out = e.types.block(e.out, t.results)
		e.depth++
	}
	// Branches to the function itself either return, or go to the wrapping block.
	e.labels = append(e.labels, label{event: noEvent, op: opBlock, values: len(t.results) > 0, tables: 0xff, ends: 1, depth: e.depth})
	if f.leafCost >= 0 {
		// Early, so that the load and store overlap with what the leaf does.
		e.pay(f.leafCost)
		e.st.pend -= f.leafCost
	}
	e.run(f.events.from, f.events.to)
	patch(e.out, start)
}

// maxSunk is up to how many calls of guest functions in a function with loops
// are each preceded by a test of their own, in place of one test at the entry.
const maxSunk = 2

// locals declares the guest's locals and those of metering.
func (e *emitter) locals(f *fn) {
	next, extra := f.locals, uint32(0)
	add := func() uint32 { next, extra = next+1, extra+1; return next - 1 }
	displaced := false
	switch n := uint32(len(e.m.types[f.typ].params)); {
	case f.takes && f.locals > n:
		displaced = true
		e.c, e.first = n, add()
	case f.takes:
		e.c, next = n, n+1
	case e.local:
		e.c = add()
	}
	if f.bulk {
		e.length = add()
	}
	e.out = appendU32(e.out, f.groups+extra)
	if displaced {
		e.displace(f)
	} else {
		e.out = append(e.out, e.src[f.decls.from:f.decls.to]...)
		if e.local && !f.takes {
			e.out = append(e.out, 1, typeI64)
		}
	}
	if f.bulk {
		e.out = append(e.out, 1, typeI32)
	}
}

func (e *emitter) op(op byte, arg uint32) { e.out = appendU32(append(e.out, op), arg) }

func (e *emitter) constant(v int64) { e.out = appendS64(append(e.out, opI64Const), v) }

func (e *emitter) getGlobal() { e.op(opGlobalGet, e.counter) }
func (e *emitter) setGlobal() { e.op(opGlobalSet, e.counter) }

func (e *emitter) getCounter() {
	if e.local {
		e.op(opLocalGet, e.c)
	} else {
		e.getGlobal()
	}
}

func (e *emitter) setCounter() {
	if e.local {
		e.op(opLocalSet, e.c)
	} else {
		e.setGlobal()
	}
}

// pay charges units now. It leaves the operand stack as it was.
func (e *emitter) pay(units int32) {
	if units == 0 {
		return
	}
	e.getCounter()
	e.subtract(units)
	e.setCounter()
}

func (e *emitter) subtract(units int32) {
	if units != 0 {
		e.constant(int64(units))
		e.out = append(e.out, opI64Sub)
	}
}

// settle pays all that is pending.
func (e *emitter) settle() {
	e.pay(e.st.pend)
	e.st.pend = 0
}

// publish settles and makes the global counter exact; a local counter is stale
// afterwards.
func (e *emitter) publish() {
	if !e.local {
		e.settle()
		return
	}
	e.getCounter()
	e.subtract(e.st.pend)
	e.setGlobal()
	e.st.pend = 0
}

// test asks for a refill if the counter is below zero. Nothing may be pending.
func (e *emitter) test() {
	e.getCounter()
	e.constant(0)
	e.out = append(e.out, opI64LtS, opIf, emptyBlock)
	e.ask()
	e.out = append(e.out, opEnd)
	e.passed()
}

// passed notes that each path to here comes from a test.
func (e *emitter) passed() {
	e.st.tested = true
	e.st.own, e.st.all = 0, 0
}

// ask calls for a refill.
func (e *emitter) ask() {
	if e.local {
		e.getCounter()
		e.op(opCall, e.helper)
		e.setCounter()
	} else {
		e.op(opCall, e.refill)
	}
}

// leave makes the counter exact for whoever called this function.
func (e *emitter) leave() {
	if e.st.own > ReturnStretch {
		e.settle()
		e.test()
	}
	if e.f.takes {
		e.hand()
	} else {
		e.publish()
	}
}

func (e *emitter) call(x uint32) {
	if n := uint32(len(e.m.importFuncs)); x < n {
		e.st.spend(1)
		e.publish()
		e.op(opCall, x)
		e.reload()
		return
	} else if f := &e.m.funcs[x-n]; f.leafCost >= 0 {
		e.st.spend(1 + uint32(f.leafCost))
		e.op(opCall, f.clone)
		return
	} else if f.takes {
		e.testCall()
		e.hand()
		e.op(opCall, f.clone)
		e.setCounter()
		e.st.all += LeafLimit
		return
	}
	e.beforeCall()
	e.op(opCall, e.index(x))
	e.afterCall()
}

// beforeCall pays for a call operator that may enter a metered function.
func (e *emitter) beforeCall() {
	e.testCall()
	e.publish()
}

func (e *emitter) testCall() {
	e.st.spend(1)
	if !e.st.tested {
		e.settle()
		e.test()
	}
}

func (e *emitter) afterCall() {
	e.st.all += LeafLimit
	e.reload()
}

func (e *emitter) reload() {
	if e.local {
		e.getGlobal()
		e.setCounter()
	}
}

// bulk emits an operator whose length is on top of the operand stack, and the
// surcharge and a test before it.
func (e *emitter) bulk(v *event) {
	e.st.spend(1)
	e.settle()
	e.op(opLocalTee, e.length)
	e.getCounter()
	switch v.aux {
	case opMemoryGrow:
		e.lengthBelow(maxPages + 1)
		e.constant(13) // 65536 bytes, a unit for 8
		e.out = append(e.out, opI64Shl)
	case miscTableGrow:
		e.lengthBelow(maxElements + 1)
	default:
		e.op(opLocalGet, e.length)
		e.out = append(e.out, opI64ExtendU)
		if v.aux <= miscMemoryFill {
			e.constant(3)
			e.out = append(e.out, opI64ShrU)
		}
	}
	e.out = append(e.out, opI64Sub)
	e.setCounter()
	e.test()
	e.raw(v)
}

// lengthBelow pushes the length as an i64, or zero if it is not below limit.
func (e *emitter) lengthBelow(limit int64) {
	e.op(opLocalGet, e.length)
	e.out = append(e.out, opI32Const, 0)
	e.op(opLocalGet, e.length)
	e.out = appendS64(append(e.out, opI32Const), limit)
	e.out = append(e.out, opI32LtU, opSelect, opI64ExtendU)
}
