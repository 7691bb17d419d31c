package fuel

// Bounds of unrolling: how large the unrolled loop may become.
const (
	maxUnroll      = 4
	maxUnrollCost  = 64 // units, over all copies
	maxUnrollSteps = 64 // events, over all copies
)

// unrollFactor says into how many copies the loop at event i is worth
// unrolling; 1 for not at all. Only innermost loops without calls are.
func (e *emitter) unrollFactor(i uint32) uint32 {
	v := &e.events[i]
	if !e.unrolling || v.flags&(flagHasInner|flagHasParams) != 0 || v.aux != noEvent {
		return 1
	}
	steps := v.arg - i
	if steps > maxUnrollSteps/2 {
		return 1
	}
	cost, depth, back := uint32(0), uint32(0), false
	for _, w := range e.events[i+1 : v.arg] {
		cost += w.cost + 1
		switch w.op {
		case opBlock, opIf:
			depth++
		case opEnd:
			depth--
		case opBr, opBrIf:
			back = back || w.arg == depth
		case opBrTable, opCallIndirect, evBulk:
			return 1
		case opCall:
			if n := uint32(len(e.m.importFuncs)); w.arg < n || e.m.funcs[w.arg-n].leafCost < 0 {
				return 1
			}
		}
	}
	if !back {
		return 1
	}
	return max(1, min(maxUnroll, maxUnrollCost/max(cost, 1), maxUnrollSteps/steps))
}

// unroll emits n copies of the body of the loop at event i, with one payment
// and one test for all of them:
//
//	block X  loop…  block C1 BODY, br X end  block C2 BODY, br X end  BODY  end… end
//
// where a branch to the loop goes to the end of its own copy's block, and only
// the last copy's goes back. If the loop's last operator repeats it, what that
// leaves for X pays before.
func (e *emitter) unroll(i, n uint32) uint32 {
	v := &e.events[i]
	last := &e.events[v.arg]
	e.out = append(e.out, opBlock)
	e.out = append(e.out, e.src[v.pos+1:v.end]...)
	e.depth++
	exit := label{op: opBlock, depth: e.depth}
	ends := e.loopHead(v)
	head := e.loopDepth(ends)
	to := v.arg
	closes := e.closes(to-1, i)
	if closes {
		to--
	}
	for k := uint32(1); k <= n; k++ {
		if k < n {
			e.out = append(e.out, opBlock, emptyBlock)
			e.depth++
			l := e.push(i, opBlock)
			l.values = false
		} else {
			e.push(i, opLoop).depth = head
		}
		e.run(i+1, to)
		switch {
		case closes:
			e.copy(&e.events[to])
			e.st.spend(1)
			e.pay(e.edge(&exit))
			e.st.pend = exit.at.pend
			e.out = append(e.out, opI32Eqz)
			e.branch(opBrIf, &exit)
			if l := e.at(0); k < n {
				e.pay(e.edge(l))
			} else {
				e.settle()
				e.branch(opBr, l)
			}
		case last.flags&flagDeadBefore == 0:
			e.copy(last)
			e.pay(e.edge(&exit))
			if k < n {
				e.branch(opBr, &exit)
			}
		}
		if k < n {
			e.out = append(e.out, opEnd)
			e.depth--
			e.st = e.labels[len(e.labels)-1].at
		}
		e.labels = e.labels[:len(e.labels)-1]
	}
	e.loopEnd(ends, last.flags&flagDeadBefore == 0)
	e.out = append(e.out, opEnd)
	e.depth--
	if last.flags&flagDeadAfter != 0 {
		e.out = append(e.out, opUnreachable)
	} else {
		e.st = exit.at
	}
	return v.arg + 1
}
