package fuel

// label is a branch target of the function being emitted.
//
// Each label has a potential: the cost that is still to be paid on arrival,
// whichever way one came. The first edge to a forward label decides it, and
// each later edge pays the difference. A loop's is zero.
type label struct {
	event  uint32 // that opened it
	op     byte
	values bool // branches carry values
	tables byte // see event
	ends   byte // how many blocks it is made of, see loop.go
	set    bool // at least one edge has been seen; at holds the state on arrival
	at     state
	other  state // if: the state in which its else begins
	depth  int32 // blocks open in the output just inside of it

	wayFrom, wayTo int // dispatch loop: its targets, in emitter.ways
}

// state is what is known statically at one point of the code.
type state struct {
	pend   int32 // cost that was incurred and not paid yet
	own    int32 // greatest cost of a path from the last test, callees left out
	all    int32 // the same with what callees may leave untested
	tested bool  // each path from the entry has passed a test
}

func (s *state) merge(t state) {
	s.own, s.all = max(s.own, t.own), max(s.all, t.all)
	s.tested = s.tested && t.tested
}

func (s *state) spend(units uint32) {
	s.pend += int32(units)
	s.own += int32(units)
	s.all += int32(units)
}

// edge records a way from here to a forward label and returns what has to be
// paid on it.
func (e *emitter) edge(l *label) int32 {
	if l.set {
		l.at.merge(e.st)
		return e.st.pend - l.at.pend
	}
	l.set = true
	l.at = e.st
	if l.tables > 0 || !e.potentials {
		// All targets of a br_table need one potential, see brTable.
		l.at.pend = 0
	}
	return e.st.pend - l.at.pend
}

func (e *emitter) push(ev uint32, op byte) *label {
	v := &e.events[ev]
	e.labels = append(e.labels, label{event: ev, op: op, values: v.flags&flagHasValues != 0, tables: v.tables, ends: 1, depth: e.depth})
	return &e.labels[len(e.labels)-1]
}

func (e *emitter) at(depth uint32) *label { return &e.labels[uint32(len(e.labels))-1-depth] }

// run emits the events from i up to and not including to.
func (e *emitter) run(i, to uint32) {
	for i < to {
		i = e.step(i)
	}
}

// step emits the event i with the operators before it and returns the next one.
func (e *emitter) step(i uint32) uint32 {
	v := &e.events[i]
	if v.flags&flagDeadBefore == 0 {
		e.copy(v)
	}
	switch v.op {
	case opBlock:
		e.raw(v)
		e.depth++
		e.push(i, opBlock)
	case opLoop:
		return e.loop(i)
	case opIf:
		e.ifElse(i)
	case opElse:
		e.elseArm(v)
	case opEnd:
		e.end(v)
	case opBr:
		e.br(v)
	case opBrIf:
		e.brIf(i)
	case opBrTable:
		e.brTable(i)
	case opReturn:
		e.leave()
		e.out = append(e.out, opReturn)
	case opUnreachable:
		e.raw(v)
	case opCall:
		e.call(v.arg)
	case opCallIndirect:
		e.beforeCall()
		e.raw(v)
		e.afterCall()
	case opRefFunc:
		e.st.spend(1)
		e.out = appendU32(append(e.out, opRefFunc), e.index(v.arg))
	case evBulk:
		e.bulk(v)
	case evPoint:
	}
	return i + 1
}

// copy emits the plain operators before an event.
func (e *emitter) copy(v *event) {
	to := v.pos
	if v.flags&flagThread != 0 {
		to -= uint32(v.pair) // br decides whether they are needed
	}
	e.source(v.from, to)
	e.st.spend(v.cost)
	if e.st.all > MaxStretch-2*runLength {
		e.settle()
		e.test()
	}
}

func (e *emitter) raw(v *event) { e.out = append(e.out, e.src[v.pos:v.end]...) }

func (e *emitter) ifElse(i uint32) {
	v := &e.events[i]
	e.st.spend(1)
	hasElse := e.events[v.arg].op == opElse
	if !e.potentials || !hasElse && v.tables > 0 {
		e.settle()
	}
	e.raw(v)
	e.depth++
	l := e.push(i, opIf)
	if hasElse {
		l.other = e.st
	} else {
		e.edge(l) // not taken; free, being the first edge
	}
}

func (e *emitter) elseArm(v *event) {
	l := e.at(0)
	if v.flags&flagDeadBefore == 0 {
		e.pay(e.edge(l))
	}
	e.out = append(e.out, opElse)
	e.st = l.other
}

func (e *emitter) end(v *event) {
	l := e.at(0)
	live := v.flags&flagDeadBefore == 0
	if len(e.labels) == 1 {
		e.endFunction(l, live)
		return
	}
	if l.op != opLoop && live {
		e.pay(e.edge(l))
	}
	e.loopEnd(l.ends, live)
	switch {
	case v.flags&flagDeadAfter != 0:
		// The block may promise values; what follows must validate without them.
		e.out = append(e.out, opUnreachable)
	case l.op != opLoop:
		e.st = l.at
	}
	if l.op == opLoop {
		e.ways = e.ways[:len(e.ways)-(l.wayTo-l.wayFrom)]
	}
	e.labels = e.labels[:len(e.labels)-1]
}

func (e *emitter) endFunction(l *label, live bool) {
	if e.f.wrap {
		if live {
			e.pay(e.edge(l))
		}
		e.out = append(e.out, opEnd)
		if live = l.set; live {
			e.st = l.at
		} else {
			e.out = append(e.out, opUnreachable)
		}
	}
	if live {
		e.leave()
	}
	if e.ahead {
		if live {
			e.out = append(e.out, opReturn)
		}
		e.askBehind()
	}
	e.out = append(e.out, opEnd)
}

func (e *emitter) br(v *event) {
	l := e.at(v.arg)
	e.st.spend(1)
	if v.flags&flagThread != 0 {
		t := (*label)(nil)
		if e.threading {
			t = e.threaded(l, v.aux)
		}
		if t == nil || !e.dropsSelector(l) {
			e.source(v.pos-uint32(v.pair), v.pos)
		}
		if t != nil {
			e.st.spend(2) // local.get and br_table of the dispatch
			l = t
		}
	}
	switch {
	case v.arg+1 == uint32(len(e.labels)):
		e.leave()
		e.out = append(e.out, opReturn)
		return
	case l.op == opLoop:
		e.settle()
	default:
		e.pay(e.edge(l))
	}
	e.branch(opBr, l)
}

func (e *emitter) branch(op byte, l *label) {
	e.out = appendU32(append(e.out, op), uint32(e.depth-l.depth))
}

func (e *emitter) brIf(i uint32) {
	v := &e.events[i]
	l := e.at(v.arg)
	e.st.spend(1)
	if l.op == opLoop || !e.potentials {
		e.settle()
	}
	if l.op == opLoop {
		if l.ends == outOfLine && e.closes(i, l.event) {
			e.out = append(e.out, opI32Eqz)
			e.op(opBrIf, uint32(e.depth-l.depth)+outOfLine-2)
			e.branch(opBr, l)
		} else {
			e.branch(opBrIf, l)
		}
		return
	}
	diff := e.edge(l)
	switch {
	case diff == 0:
		e.branch(opBrIf, l)
	case l.values:
		// The values would have to pass through an if: pay on both ways.
		e.pay(diff)
		e.st.pend = l.at.pend
		e.branch(opBrIf, l)
	default:
		e.out = append(e.out, opIf, emptyBlock)
		e.depth++
		e.pay(diff)
		e.branch(opBr, l)
		e.depth--
		e.out = append(e.out, opEnd)
	}
}

// brTable emits a br_table. It cannot pay differently on each way, so all its
// targets need the same potential: what is pending here if each of them is
// new and in no other table, else zero.
func (e *emitter) brTable(i uint32) {
	v := &e.events[i]
	e.st.spend(1)
	r := reader{b: e.src, i: int(v.pos) + 1}
	n := r.u32()
	first := r.i
	fresh := e.potentials
	for range n + 1 {
		l := e.at(r.u32())
		if l.op == opLoop || l.set || l.tables != 1 {
			fresh = false
		}
	}
	if !fresh {
		e.settle()
	}
	dispatch := e.dispatchLoop(i)
	if dispatch != nil {
		dispatch.wayFrom = len(e.ways)
	}
	r.i = first
	e.out = appendU32(append(e.out, opBrTable), n)
	for range n + 1 {
		d := r.u32()
		l := e.at(d)
		if l.op != opLoop {
			e.edge(l)
			l.at.pend = e.st.pend
		}
		e.out = appendU32(e.out, uint32(e.depth-l.depth))
		if dispatch != nil {
			e.ways = append(e.ways, way{uint32(len(e.labels)) - 1 - d, l.event})
		}
	}
	if dispatch != nil {
		dispatch.wayTo = len(e.ways)
	}
}
