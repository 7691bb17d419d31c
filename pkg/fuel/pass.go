package fuel

import "slices"

// Passing the counter. A function that is called directly and is in no table
// takes the counter as one more parameter, behind its own, and gives it back as
// one more result, so that between such functions it stays in a register. The
// global is set before whatever else may look at it: host calls, refills, calls
// through a table, and the return to the host.
//
// The parameter has the index of the function's first own local, which gets
// another. Where the guest can be entered from outside, the function's index
// stays with an entrance of the guest's type, and the function itself is
// appended behind all others.

// maxPassed is up to how many parameters or results a function may have; with
// more, the counter would go through the stack.
const maxPassed = 5

// mayTake reports whether what is known before the scan lets f take the counter.
func (f *fn) mayTake(params int) bool { return !f.referred && params <= maxPassed }

// findTakers marks the functions that take the counter.
func (m *module) findTakers(x *extras, types *typeTable) {
	for _, e := range m.exports {
		if n := uint32(len(m.importFuncs)); e.Kind == ExternFunc && e.index >= n {
			m.funcs[e.index-n].outside = true
		}
	}
	if m.has[secStart] {
		if f, n := m.section(secStart).u32(), uint32(len(m.importFuncs)); f >= n {
			m.funcs[f-n].outside = true
		}
	}
	takes := make(map[uint32]uint32) // types, by those without the counter
	for i := range m.funcs {
		f := &m.funcs[i]
		t := m.types[f.typ]
		if !f.direct || f.leafCost >= 0 || !f.mayTake(len(t.params)) || len(t.results) > maxPassed {
			continue
		}
		typ, ok := takes[f.typ]
		if !ok {
			typ = types.add(append(slices.Clone(t.params), typeI64), append(slices.Clone(t.results), typeI64))
			takes[f.typ] = typ
		}
		f.takes = true
		if f.outside {
			f.clone = x.add(uint32(i), typ)
		} else {
			f.clone = uint32(len(m.importFuncs)) + 1 + uint32(i)
			f.outer = typ
		}
	}
}

// hand pushes the counter, exact, for a function that takes it or for the caller
// that gets it back.
func (e *emitter) hand() {
	e.getCounter()
	e.subtract(e.st.pend)
	e.st.pend = 0
}

// entrance emits what callers from outside find in place of a function that
// takes the counter.
func (e *emitter) entrance(f *fn) {
	var start int
	e.out, start = reserve(e.out)
	e.out = append(e.out, 0)
	for i := range e.m.types[f.typ].params {
		e.op(opLocalGet, uint32(i))
	}
	e.getGlobal()
	e.op(opCall, f.clone)
	e.setGlobal()
	e.out = append(e.out, opEnd)
	patch(e.out, start)
}

// displace declares the guest's locals without the first, and that one behind them.
func (e *emitter) displace(f *fn) {
	r := reader{b: e.src[:f.decls.to], i: int(f.decls.from)}
	var kind byte
	for kind == 0 && r.more() {
		n, t := r.u32(), r.byte()
		if n > 0 {
			kind = t
			n--
		}
		e.out = append(appendU32(e.out, n), t)
	}
	e.out = append(e.out, r.b[r.i:]...)
	e.out = append(e.out, 1, kind)
}

// source copies operators that need nothing but that local's new index.
func (e *emitter) source(from, to uint32) {
	if f := e.f; f.takes {
		firsts := e.firsts[f.first.from:f.first.to]
		i, _ := slices.BinarySearch(firsts, from)
		for ; i < len(firsts) && firsts[i] < to; i++ {
			at := firsts[i]
			e.out = append(e.out, e.src[from:at]...)
			e.op(e.src[at], e.first)
			r := reader{b: e.src, i: int(at) + 1}
			r.u32()
			from = uint32(r.i)
		}
	}
	e.out = append(e.out, e.src[from:to]...)
}

// extras are the functions that are appended to the guest's: uncharged copies of
// leaves, and functions with an entrance in their place.
type extras struct {
	next  uint32   // index of the next one
	funcs []uint32 // which defined function each comes from
	types []uint32 // the type of each
}

func (x *extras) add(f, typ uint32) uint32 {
	x.funcs, x.types = append(x.funcs, f), append(x.types, typ)
	x.next++
	return x.next - 1
}
