package fuel

// What sits outside of function bodies and names functions: initial values of
// globals, and element segments. Both are copied with each function index
// passed through a mapping; with a nil destination they are only walked.

// copyExpr copies one constant expression up to and including its end.
func (m *module) copyExpr(r *reader, out []byte, index func(uint32) uint32) []byte {
	for !r.bad {
		from := r.i
		op := r.byte()
		switch op {
		case opEnd:
			return append(out, opEnd)
		case opRefFunc:
			out = appendU32(append(out, opRefFunc), index(m.function(r)))
			continue
		case opI32Const, opI64Const:
			r.s64()
		case opF32Const:
			r.take(4)
		case opF64Const:
			r.take(8)
		case opGlobalGet:
			if r.u32() >= m.imported {
				r.fail() // only an imported global is constant
			}
		case opRefNull:
			r.byte()
		case opVector:
			if r.u32() != 12 { // v128.const
				r.fail()
			}
			r.take(16)
		default:
			r.fail()
		}
		out = append(out, r.b[from:r.i]...)
	}
	return out
}

// function reads a function index of the input.
func (m *module) function(r *reader) uint32 {
	f := r.u32()
	if f >= m.funcCount() {
		r.fail()
		return 0
	}
	return f
}

// checkData walks the data section, which is copied as it is.
func (m *module) checkData() error {
	r := m.section(secData)
	if !r.more() {
		return nil
	}
	var scratch []byte
	for range r.count(2) {
		switch r.u32() {
		case 0:
			scratch = m.copyExpr(r, scratch[:0], keep)
		case 1:
		case 2:
			r.u32() // memory
			scratch = m.copyExpr(r, scratch[:0], keep)
		default:
			r.fail()
		}
		r.take(r.u32())
	}
	return finish(r, "its data segments")
}

func keep(f uint32) uint32 { return f }

// refer notes that a function can be reached by a reference to it.
func (m *module) refer(f uint32) uint32 {
	if i := int(f) - len(m.importFuncs); i >= 0 && i < len(m.funcs) {
		m.funcs[i].referred = true
	}
	return f
}

// copyGlobals copies the entries of the global section, without their count.
func (m *module) copyGlobals(out []byte, index func(uint32) uint32) ([]byte, int, error) {
	r := m.section(secGlobal)
	if !r.more() {
		return out, 0, nil
	}
	n := r.count(4)
	for range n {
		out = append(out, r.take(2)...)
		out = m.copyExpr(r, out, index)
	}
	return out, n, finish(r, "its globals")
}

// copyElements copies the whole content of the element section.
func (m *module) copyElements(out []byte, index func(uint32) uint32) ([]byte, error) {
	r := m.section(secElement)
	if !r.more() {
		return out, nil
	}
	n := r.count(2)
	out = appendU32(out, uint32(n))
	for range n {
		kind := r.u32()
		if kind > 7 {
			return nil, malformed("an element segment is of an unknown kind")
		}
		out = appendU32(out, kind)
		active, explicit, exprs := kind&1 == 0, kind&2 != 0, kind&4 != 0
		if active {
			if explicit {
				out = appendU32(out, r.u32()) // table
			}
			out = m.copyExpr(r, out, index)
		}
		if kind&3 != 0 {
			out = append(out, r.byte()) // element kind or reference type
		}
		items := r.count(1)
		out = appendU32(out, uint32(items))
		for range items {
			if exprs {
				out = m.copyExpr(r, out, index)
			} else {
				out = appendU32(out, index(m.function(r)))
			}
			if r.bad {
				break
			}
		}
	}
	return out, finish(r, "its element segments")
}
