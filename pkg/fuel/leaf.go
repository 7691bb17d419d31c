package fuel

// Static leaves: a function whose operators run exactly once each, in order,
// costs the same on each call, so its direct callers pay for it with the call
// and it is not charged itself. They call an uncharged copy, appended behind
// all other functions; the metered original stays for tables, exports and the
// host. No guest can reach the copy in another way.

// findLeaves marks the static leaves and gives each that is called directly an
// index for its copy, which adds takes. It also takes calls of leaves out of the
// count of calls of each function.
func (m *module) findLeaves(events []event, x *extras) {
	found := false
	for i := range m.funcs {
		f := &m.funcs[i]
		if f.calls > 0 || f.jumps || f.loops > 0 || f.bulk || f.cost > 2*LeafLimit {
			continue
		}
		cost, ok := leafCost(events[f.events.from:f.events.to])
		if !ok {
			continue
		}
		f.leafCost = cost
		if f.direct {
			f.clone = x.add(uint32(i), f.typ)
			found = true
		}
	}
	if !found {
		return
	}
	n := uint32(len(m.importFuncs))
	for i := range m.funcs {
		f := &m.funcs[i]
		if f.calls == 0 {
			continue
		}
		for _, v := range events[f.events.from:f.events.to] {
			if v.op == opCall && v.arg >= n && m.funcs[v.arg-n].leafCost >= 0 {
				f.calls--
			}
		}
	}
}

// leafCost is what one run of these events costs, the entry included; ok is
// false if they are not those of a static leaf.
func leafCost(events []event) (cost int32, ok bool) {
	total := uint32(1)
	for _, v := range events {
		total += v.cost
		switch v.op {
		case opBlock, opEnd, opReturn, evPoint:
		case opRefFunc:
			total++
		default:
			return 0, false
		}
		if v.op == opEnd && v.flags&flagDeadAfter != 0 {
			break
		}
	}
	return int32(total), total <= LeafLimit
}

// leafCopy emits the uncharged copy of a leaf.
func (e *emitter) leafCopy(f *fn) {
	var start int
	e.out, start = reserve(e.out)
	e.out = appendU32(e.out, f.groups)
	e.out = append(e.out, e.src[f.decls.from:f.decls.to]...)
	for i := f.events.from; i < f.events.to; i++ {
		v := &e.events[i]
		e.out = append(e.out, e.src[v.from:v.pos]...)
		switch v.op {
		case opRefFunc:
			e.out = appendU32(append(e.out, opRefFunc), e.index(v.arg))
		case opEnd:
			e.out = append(e.out, opEnd)
			if v.flags&flagDeadAfter != 0 {
				e.out = append(e.out, opUnreachable)
			}
		default:
			e.raw(v)
		}
	}
	patch(e.out, start)
}
