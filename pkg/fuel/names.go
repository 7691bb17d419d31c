package fuel

// Subsections of the name section.
const (
	nameModule    = 0
	nameFunctions = 1
)

// copyNames copies what the name section says about the module and its
// functions, so that a guest's stack trace stays readable. The rest of it, and
// all other custom sections, speak of offsets and locals that have moved.
func (m *module) copyNames(out []byte, e *emitter, extra []uint32) []byte {
	whole := len(out)
	r := reader{b: m.names}
	for r.more() {
		id := r.byte()
		body := r.take(r.u32())
		if r.bad {
			return out[:whole]
		}
		var ok bool
		before := len(out)
		switch id {
		case nameModule:
			out = append(appendU32(append(out, id), uint32(len(body))), body...)
			ok = true
		case nameFunctions:
			var at int
			out, at = reserve(append(out, id))
			out, ok = m.functionNames(out, &reader{b: body}, e, extra)
			if ok {
				patch(out, at)
			}
		}
		if !ok {
			out = out[:before]
		}
	}
	return out
}

// functionNames copies the names with their new indices; an appended function
// gets the name of the one it comes from.
func (m *module) functionNames(out []byte, r *reader, e *emitter, extra []uint32) ([]byte, bool) {
	n := r.count(2)
	named := make(map[uint32]string, len(extra))
	for _, i := range extra {
		named[uint32(len(m.importFuncs))+i] = ""
	}
	list := make([]byte, 0, len(r.b)+len(r.b)/8)
	last := int64(-1)
	for range n {
		i := r.u32()
		name := r.take(r.u32())
		if r.bad || int64(i) <= last || i >= m.funcCount() {
			return out, false
		}
		last = int64(i)
		list = append(appendU32(appendU32(list, e.index(i)), uint32(len(name))), name...)
		if _, ok := named[i]; ok {
			named[i] = string(name)
		}
	}
	if r.bad || r.more() {
		return out, false
	}
	for _, i := range extra {
		if name := named[uint32(len(m.importFuncs))+i]; name != "" {
			list = appendName(appendU32(list, m.funcs[i].clone), name)
			n++
		}
	}
	return append(appendU32(out, uint32(n)), list...), true
}
