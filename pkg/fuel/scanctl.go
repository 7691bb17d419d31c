package fuel

import "math"

// pairing remembers the latest constant and local operators, by where they end,
// so that "i32.const K; local.set X; br" and "local.get X; br_table" are seen.
type pairing struct {
	value           uint32 // of the latest i32.const
	at, constEnd    uint32
	pairAt, pairEnd uint32 // the latest i32.const directly followed by a local.set
	pairK, pairX    uint32
	getX, getEnd    uint32 // the latest local.get
}

func (p *pairing) local(op byte, pos, end, x uint32) {
	switch op {
	case opLocalGet:
		p.getX, p.getEnd = x, end
	case opLocalSet:
		if pos == p.constEnd && end > pos {
			p.pairAt, p.pairEnd, p.pairK, p.pairX = p.at, end, p.value, x
		}
	}
}

// control handles one control operator that can be reached.
func (s *scanner) control(op byte, pos uint32) error {
	f, r := s.f, &s.r
	switch op {
	case opBlock, opLoop, opIf:
		return s.open(op, pos)
	case opElse:
		return s.elseArm(pos)
	case opEnd:
		return s.end(pos)
	case opCall:
		x := r.u32()
		if x >= s.m.funcCount() {
			return malformed("a function calls a function that does not exist")
		}
		if n := uint32(len(s.m.importFuncs)); x >= n {
			s.m.funcs[x-n].direct = true
			f.calls++
		}
		s.emit(op, pos, x)
		return nil
	case opCallIndirect:
		if int64(r.u32()) >= int64(len(s.m.types)) {
			return malformed("a function calls by a type that does not exist")
		}
		r.u32()
		f.calls++
		s.emit(op, pos, 0)
		return nil
	case opBrIf:
		f.jumps = true
		d := r.u32()
		fr, err := s.target(d, true)
		if err != nil {
			return err
		}
		s.emit(op, pos, d)
		s.arrives(fr)
		return nil
	case opBr:
		f.jumps = true
		d := r.u32()
		fr, err := s.target(d, false)
		if err != nil {
			return err
		}
		s.emit(op, pos, d)
		s.jump(fr, pos)
	case opBrTable:
		f.jumps = true
		if err := s.brTable(pos); err != nil {
			return err
		}
	case opReturn:
		s.emit(op, pos, 0)
	case opUnreachable:
		f.jumps = true
		s.emit(op, pos, 0)
	}
	s.dead = true
	return nil
}

// open begins a block, loop or if.
func (s *scanner) open(op byte, pos uint32) error {
	params, results, ok := s.m.blockType(&s.r)
	if !ok {
		return malformed("a block has no valid type")
	}
	if len(s.frames) >= MaxNesting {
		return tooLarge("nested blocks", MaxNesting)
	}
	at := uint32(len(s.events))
	e := s.emit(op, pos, 0)
	values := results
	if op == opLoop {
		values = params
		s.f.loops++
		e.aux = noEvent
		if n := len(s.loops); n > 0 {
			s.events[s.loops[n-1]].flags |= flagHasInner
			e.flags |= flagUnpaired // an outer loop may arrive with an old selector
		}
		s.loops = append(s.loops, at)
	}
	if values > 0 {
		e.flags |= flagHasValues
	}
	if params > 0 {
		e.flags |= flagHasParams
	}
	s.frames = append(s.frames, frame{event: at, op: op})
	return nil
}

// blockType reads a block type and reports the numbers of its values.
func (m *module) blockType(r *reader) (params, results int, ok bool) {
	switch t := r.s64(); {
	case r.bad:
		return 0, 0, false
	case t == emptyBlock-0x80:
		return 0, 0, true
	case t < 0:
		return 0, 1, t >= -64 && validType(byte(t+0x80))
	case t < int64(len(m.types)):
		return len(m.types[t].params), len(m.types[t].results), true
	}
	return 0, 0, false
}

// target notes a branch to the label at depth d.
func (s *scanner) target(d uint32, wraps bool) (*frame, error) {
	if int64(d) >= int64(len(s.frames)) {
		return nil, malformed("a branch leads nowhere")
	}
	fr := &s.frames[uint32(len(s.frames))-1-d]
	fr.targeted = true
	if fr.event == noEvent {
		s.f.wrap = s.f.wrap || wraps
	}
	return fr, nil
}

func (s *scanner) brTable(pos uint32) error {
	n := s.r.count(1)
	for range n + 1 {
		fr, err := s.target(s.r.u32(), true)
		if err != nil {
			return err
		}
		if fr.event == noEvent {
			continue
		}
		// A table that names a label twice counts once.
		if e := &s.events[fr.event]; fr.table != uint32(len(s.events)) || e.tables == 0 {
			fr.table = uint32(len(s.events))
			if e.tables < math.MaxUint8 {
				e.tables++
			}
		}
		s.arrives(fr)
	}
	s.dispatch(s.emit(opBrTable, pos, noEvent), pos)
	return nil
}

// elseArm begins the second arm of an if.
func (s *scanner) elseArm(pos uint32) error {
	fr := &s.frames[len(s.frames)-1]
	if fr.op != opIf {
		return malformed("an else has no if")
	}
	fr.op = opElse
	fr.thenLive = !s.dead
	s.events[fr.event].arg = uint32(len(s.events))
	e := s.emit(opElse, pos, 0)
	if s.dead {
		e.flags |= flagDeadBefore
	}
	s.dead = false
	return nil
}

// end closes a block, or the function.
func (s *scanner) end(pos uint32) error {
	fr := s.frames[len(s.frames)-1]
	s.frames = s.frames[:len(s.frames)-1]
	at := uint32(len(s.events))
	e := s.emit(opEnd, pos, 0)
	if s.dead {
		e.flags |= flagDeadBefore
	}
	if len(s.frames) == 0 {
		return nil
	}
	opening := &s.events[fr.event]
	reached := !s.dead || fr.op != opLoop && fr.targeted
	switch fr.op {
	case opLoop:
		s.loops = s.loops[:len(s.loops)-1]
	case opIf:
		reached = true // not taken
	case opElse:
		reached = reached || fr.thenLive
		s.events[opening.arg].arg = at
	}
	if fr.op != opElse {
		opening.arg = at
	}
	if !reached {
		e.flags |= flagDeadAfter
	}
	s.dead = !reached
	return nil
}

// skipDead reads up to where something can be reached again, the else or the
// end of the innermost open block, and handles that.
func (s *scanner) skipDead() error {
	r := &s.r
	for depth := 0; ; {
		if !r.more() {
			return malformed("a function body is cut short")
		}
		pos := uint32(r.i)
		op := r.b[r.i]
		r.i++
		switch {
		case op == opElse && depth == 0:
			s.from = pos
			return s.elseArm(pos)
		case op == opEnd && depth == 0:
			s.from = pos
			return s.end(pos)
		case op == opEnd:
			depth--
		case op == opBlock || op == opLoop || op == opIf:
			if _, _, ok := s.m.blockType(r); !ok {
				return malformed("a block has no valid type")
			}
			if depth++; len(s.frames)+depth > MaxNesting {
				return tooLarge("nested blocks", MaxNesting)
			}
		default:
			if err := s.skip(op); err != nil {
				return err
			}
		}
	}
}

// skip reads the immediates of an operator that cannot be reached.
func (s *scanner) skip(op byte) error {
	r := &s.r
	switch s.shapes[op] {
	case shapePlain:
	case shapeIndex, shapeLocal:
		r.u32()
	case shapeMemory:
		r.u32()
		r.u32()
	case shapeControl:
		switch op {
		case opCall, opBr, opBrIf:
			r.u32()
		case opCallIndirect:
			r.u32()
			r.u32()
		case opBrTable:
			for range r.count(1) + 1 {
				r.u32()
			}
		}
	default:
		// Its event or cost, if it gets one, is taken back: it never runs.
		events, cost, total, bulk := len(s.events), s.cost, s.f.cost, s.f.bulk
		err := s.special(op, uint32(r.i-1))
		s.events, s.cost, s.f.cost, s.f.bulk = s.events[:events], cost, total, bulk
		return err
	}
	return nil
}
