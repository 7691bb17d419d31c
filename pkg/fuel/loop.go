package fuel

// Where a refill is asked for. The code that the test of a loop, or the one at the
// entry of a function, lets pass comes first; the call of the refill stands behind
// it and goes back to before the test:
//
//	block OUT  loop A
//	    c>=0; if
//	        loop B  c>=0; if  BODY; br OUT  end  end
//	    end
//	    refill; br A
//	end  end OUT
//
// So the code that runs jumps over nothing, and a register allocator need not
// spill at each round what the loop carries around: where the refill is called,
// two ways meet, and values are of its own.

// outOfLine is how many blocks such a loop is made of.
const outOfLine = 5

// loop emits the loop that event i opens; it returns the event after that, or
// the one after its end if it emitted the whole loop.
func (e *emitter) loop(i uint32) uint32 {
	e.settle()
	if n := e.unrollFactor(i); n > 1 {
		return e.unroll(i, n)
	}
	ends := e.loopHead(&e.events[i])
	l := e.push(i, opLoop)
	l.ends, l.depth = ends, e.loopDepth(ends)
	return i + 1
}

// loopDepth is the depth just inside of the loop proper, seen from its body.
func (e *emitter) loopDepth(ends byte) int32 {
	if ends == outOfLine {
		return e.depth - 1
	}
	return e.depth
}

// loopHead opens the loop and tests the counter; it returns how many blocks it opened.
func (e *emitter) loopHead(v *event) byte {
	if !e.coldRefill || v.flags&flagHasParams != 0 {
		e.raw(v)
		e.depth++
		e.test()
		return 1
	}
	e.out = append(e.out, opBlock)
	e.out = append(e.out, e.src[v.pos+1:v.end]...)
	e.depth++
	e.testAhead()
	e.testAhead()
	return outOfLine
}

// loopEnd closes what loopHead opened; through says whether the body's end is reached.
func (e *emitter) loopEnd(ends byte, through bool) {
	if ends == outOfLine {
		if through {
			e.op(opBr, outOfLine-1)
		}
		e.out = append(e.out, opEnd, opEnd)
		e.depth -= 2
		e.askBehind()
	}
	e.out = append(e.out, opEnd)
	e.depth--
}

// testAhead opens a loop and, in it, what is done unless the counter is below zero.
func (e *emitter) testAhead() {
	e.out = append(e.out, opLoop, emptyBlock)
	e.getCounter()
	e.constant(0)
	e.out = append(e.out, opI64GeS, opIf, emptyBlock)
	e.depth += 2
	e.passed()
}

// askBehind closes what testAhead opened, with a refill for when it is below zero.
func (e *emitter) askBehind() {
	e.out = append(e.out, opEnd)
	e.ask()
	e.out = append(e.out, opBr, 0, opEnd, opUnreachable)
	e.depth -= 2
}

// closes reports whether the br_if at event i repeats the loop and is the last
// of its body. It is then emitted as a branch out of the loop and a br, because
// compilers place the next round behind what is not taken.
func (e *emitter) closes(i, loop uint32) bool {
	b, end, l := &e.events[i], &e.events[i+1], &e.events[loop]
	return e.invertedLoops && b.op == opBrIf && b.arg == 0 && l.arg == i+1 && end.from == end.pos && e.src[l.pos+1] == emptyBlock
}
