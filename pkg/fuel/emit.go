package fuel

// emitter writes the bodies of the metered module, one after the other.
type emitter struct {
	m      *module
	src    []byte
	events []event
	out    []byte

	counter uint32 // index of the hidden global
	refill  uint32 // index of the refill import
	helper  uint32 // index of the function that refills a local counter
	types   *typeTable

	localCounter, doubleLoop, potentials, sunkEntry, threading, unrolling bool

	// The function being emitted.
	f      *fn
	st     state
	labels []label
	ways   []way
	depth  int32  // blocks open in the output
	local  bool   // the counter is in local c
	c      uint32 // that local
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
	e.f, e.depth, e.st = f, 0, state{pend: 1, own: 1, all: 1}
	e.labels, e.ways = e.labels[:0], e.ways[:0]
	e.local = f.loops > 0 && e.localCounter
	var start int
	e.out, start = reserve(e.out)
	e.locals(f)
	if e.local {
		e.getGlobal()
		e.setCounter()
	}
	t := e.m.types[f.typ]
	if f.wrap {
		e.out = append(e.out, opBlock)
		e.out = e.types.block(e.out, t.results)
		e.depth = 1
	}
	// Branches to the function itself either return, or go to the wrapping block.
	e.labels = append(e.labels, label{event: noEvent, op: opBlock, values: len(t.results) > 0, tables: 0xff, ends: 1, depth: e.depth})
	if f.calls > 0 && (f.calls > maxSunk || !e.sunkEntry) && e.events[f.events.from].op != opLoop {
		e.settle()
		e.test()
	}
	if f.leafCost >= 0 {
		// Early, so that the load and store overlap with what the leaf does.
		e.pay(f.leafCost)
		e.st.pend -= f.leafCost
	}
	e.run(f.events.from, f.events.to)
	patch(e.out, start)
}

// maxSunk is up to how many calls of guest functions are each preceded by a
// test of their own, in place of one test at the entry.
const maxSunk = 2

// locals declares the guest's locals and those of metering.
func (e *emitter) locals(f *fn) {
	extra := uint32(0)
	next := f.locals
	if e.local {
		extra++
		e.c = next
		next++
	}
	if f.bulk {
		extra++
		e.length = next
	}
	e.out = appendU32(e.out, f.groups+extra)
	e.out = append(e.out, e.src[f.decls.from:f.decls.to]...)
	if e.local {
		e.out = append(e.out, 1, typeI64)
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

// negative pushes whether the counter is below zero.
func (e *emitter) negative() {
	e.getCounter()
	e.constant(0)
	e.out = append(e.out, opI64LtS)
}

// test asks for a refill if the counter is below zero. Nothing may be pending.
func (e *emitter) test() {
	e.negative()
	e.out = append(e.out, opIf, emptyBlock)
	if e.local {
		e.getCounter()
		e.op(opCall, e.helper)
		e.setCounter()
	} else {
		e.op(opCall, e.refill)
	}
	e.out = append(e.out, opEnd)
	e.st.tested = true
	e.st.own, e.st.all = 0, 0
}

// leave makes the counter exact for whoever called this function.
func (e *emitter) leave() {
	if e.st.own > ReturnStretch {
		e.settle()
		e.test()
	}
	e.publish()
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
	}
	e.beforeCall()
	e.op(opCall, e.index(x))
	e.afterCall()
}

// beforeCall pays for a call operator that may enter a metered function.
func (e *emitter) beforeCall() {
	e.st.spend(1)
	if !e.st.tested {
		e.settle()
		e.test()
	}
	e.publish()
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
