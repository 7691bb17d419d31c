package fuel

// loop emits the loop that event i opens; it returns the event after that, or
// the one after its end if it emitted the whole loop.
//
// The double loop keeps the call of the refill out of the loop proper:
//
//	loop A  {if c<0: refill}  loop B  c<0; br_if A  BODY  end end
//
// so that a register allocator need not spill what the loop carries around.
func (e *emitter) loop(i uint32) uint32 {
	e.settle()
	if n := e.unrollFactor(i); n > 1 {
		return e.unroll(i, n)
	}
	ends := e.loopHead(&e.events[i])
	e.push(i, opLoop).ends = ends
	return i + 1
}

// loopHead opens the loops and tests the counter; it returns how many it opened.
func (e *emitter) loopHead(v *event) byte {
	e.raw(v)
	e.depth++
	e.test()
	if !e.doubleLoop {
		return 1
	}
	e.raw(v)
	e.depth++
	e.negative()
	e.out = append(e.out, opBrIf, 1)
	return 2
}
