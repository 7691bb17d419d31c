package fuel

// Jump threading. Compilers that have no structured control flow at hand (Go's
// above all) put a function into a dispatch loop:
//
//	loop  block…block  local.get X  br_table …  end CODE0  end CODE1 … end
//
// and jump by "i32.const K; local.set X; br LOOP". If the block that case K
// leaves is still open at that point, the jump can leave it directly. It is
// charged as if it had gone the long way.

// dispatch notes that the br_table just scanned, at index len-1, heads a dispatch loop.
func (s *scanner) dispatch(table *event, pos uint32) {
	if s.pair.getEnd != pos || table.cost != 1 {
		return
	}
	at := len(s.events) - 1
	i := at - 1
	for i >= int(s.f.events.from) && s.events[i].op == opBlock && (i == at-1 || s.events[i+1].cost == 0) {
		i--
	}
	if i < int(s.f.events.from) || s.events[i].op != opLoop || at > i+1 && s.events[i+1].cost != 0 {
		return
	}
	if s.events[i].flags&flagHasParams != 0 {
		return
	}
	s.events[i].aux = uint32(at)
	table.arg, table.aux = uint32(i), s.pair.getX
}

// jump notes a br, whose event is the last one, to the label of fr.
func (s *scanner) jump(fr *frame, pos uint32) {
	if fr.op != opLoop || fr.event == noEvent {
		return
	}
	e, loop := &s.events[len(s.events)-1], &s.events[fr.event]
	if loop.aux != noEvent && s.pair.pairEnd == pos && s.pair.pairX == s.events[loop.aux].aux && s.pair.pairAt >= e.from {
		e.flags |= flagThread
		e.aux = s.pair.pairK
		e.pair = byte(pos - s.pair.pairAt)
		return
	}
	loop.flags |= flagUnpaired
}

// arrives notes a branch other than br to the label of fr.
func (s *scanner) arrives(fr *frame) {
	if fr.op == opLoop && fr.event != noEvent {
		s.events[fr.event].flags |= flagUnpaired
	}
}

// dispatchLoop is the label of the loop that the br_table at event i heads, or nil.
func (e *emitter) dispatchLoop(i uint32) *label {
	loop := e.events[i].arg
	if !e.threading || loop == noEvent {
		return nil
	}
	// Only blocks were opened between the two.
	place := len(e.labels) - 1 - int(i-loop-1)
	if l := &e.labels[place]; l.op == opLoop && l.event == loop {
		return l
	}
	return nil
}

// way is one target of a dispatch table: a label by its place on the stack and
// by the event that opened it.
type way struct{ place, event uint32 }

// threaded finds the open label that a jump with selector k through the
// dispatch loop l ends at; nil if it has to go through the loop.
func (e *emitter) threaded(l *label, k uint32) *label {
	if l.wayTo == l.wayFrom {
		return nil
	}
	w := e.ways[min(l.wayFrom+int(k), l.wayTo-1)]
	if int(w.place) >= len(e.labels) {
		return nil
	}
	t := &e.labels[w.place]
	if t.event != w.event || t.op != opBlock || t.values {
		return nil
	}
	return t
}

// dropsSelector reports whether nothing reads the selector that a threaded
// jump leaves behind: the dispatch is its only reader, and each way there sets
// it anew.
func (e *emitter) dropsSelector(l *label) bool {
	loop := &e.events[l.event]
	return loop.flags&flagUnpaired == 0 && e.events[loop.aux].aux == 0 && e.f.reads0 == 1
}
