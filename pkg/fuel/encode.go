package fuel

// typeTable is the guest's function types and those that metering adds.
type typeTable struct {
	guest int
	extra []byte // encoded
	n     uint32 // in extra
	wraps map[string]uint32
}

func (t *typeTable) add(params, results []byte) uint32 {
	t.extra = append(t.extra, funcForm)
	t.extra = append(appendU32(t.extra, uint32(len(params))), params...)
	t.extra = append(appendU32(t.extra, uint32(len(results))), results...)
	t.n++
	return uint32(t.guest) + t.n - 1
}

// block appends the block type that takes nothing and gives these results.
func (t *typeTable) block(out, results []byte) []byte {
	switch len(results) {
	case 0:
		return append(out, emptyBlock)
	case 1:
		return append(out, results[0])
	}
	i, ok := t.wraps[string(results)]
	if !ok {
		i = t.add(nil, results)
		t.wraps[string(results)] = i
	}
	return appendS64(out, int64(i))
}

// encode writes the metered module.
func (m *module) encode(s *scanner, o Options) []byte {
	imports, defined := uint32(len(m.importFuncs)), uint32(len(m.funcs))
	helper := imports + 1 + defined
	var leaves []uint32
	if o.on(StaticLeaves) {
		leaves = m.findLeaves(s.events, helper+1)
	}
	types := &typeTable{guest: len(m.types), wraps: make(map[string]uint32)}
	refillType := types.add(nil, nil)
	helperType := types.add([]byte{typeI64}, []byte{typeI64})
	e := &emitter{
		m: m, src: m.src, events: s.events, types: types,
		counter: m.globals, refill: imports, helper: helper,
		localCounter: o.on(LocalCounter), doubleLoop: o.on(DoubleLoop), potentials: o.on(Potentials),
		sunkEntry: o.on(SunkEntry), threading: o.on(Threading), unrolling: o.on(Unrolling),
	}
	code := m.sections[secCode]
	e.out = make([]byte, 0, int(code.to-code.from)*3/2+64)
	e.out = appendU32(e.out, defined+1+uint32(len(leaves)))
	for i := range m.funcs {
		e.function(&m.funcs[i])
	}
	e.refillHelper()
	for _, i := range leaves {
		e.leafCopy(&m.funcs[i])
	}

	out := make([]byte, 0, len(m.src)+len(e.out)-int(code.to-code.from)+len(m.names)/8+4096)
	out = append(out, m.src[:8]...)
	section := func(id byte, body func(b []byte) []byte) {
		var at int
		out, at = reserve(append(out, id))
		out = body(out)
		patch(out, at)
	}
	// grown is a section of n entries, the guest's with more behind them.
	grown := func(id int, n, more uint32, add func(b []byte) []byte) {
		section(byte(id), func(b []byte) []byte {
			b = appendU32(b, n+more)
			if r := m.section(id); r.more() {
				r.u32()
				b = append(b, r.b[r.i:]...)
			}
			return add(b)
		})
	}
	verbatim := func(id int) {
		if m.has[id] {
			section(byte(id), func(b []byte) []byte { return append(b, m.section(id).b...) })
		}
	}
	grown(secType, uint32(len(m.types)), types.n, func(b []byte) []byte { return append(b, types.extra...) })
	grown(secImport, uint32(len(m.imports)), 1, func(b []byte) []byte {
		b = appendName(appendName(b, RefillModule), RefillName)
		return appendU32(append(b, byte(ExternFunc)), refillType)
	})
	grown(secFunction, defined, 1+uint32(len(leaves)), func(b []byte) []byte {
		b = appendU32(b, helperType)
		for _, i := range leaves {
			b = appendU32(b, m.funcs[i].typ)
		}
		return b
	})
	verbatim(secTable)
	verbatim(secMemory)
	section(secGlobal, func(b []byte) []byte {
		b = appendU32(b, m.globals-m.imported+1)
		b, _, _ = m.copyGlobals(b, e.index)
		return append(b, typeI64, 1, opI64Const, 0, opEnd)
	})
	section(secExport, func(b []byte) []byte {
		b = appendU32(b, uint32(len(m.exports))+1)
		for _, x := range m.exports {
			i := x.index
			if x.Kind == ExternFunc {
				i = e.index(i)
			}
			b = appendU32(append(appendName(b, x.Name), byte(x.Kind)), i)
		}
		return appendU32(append(appendName(b, CounterExport), byte(ExternGlobal)), m.globals)
	})
	if m.has[secStart] {
		section(secStart, func(b []byte) []byte { return appendU32(b, e.index(m.section(secStart).u32())) })
	}
	if m.has[secElement] {
		section(secElement, func(b []byte) []byte { b, _ = m.copyElements(b, e.index); return b })
	}
	verbatim(secDataCount)
	section(secCode, func(b []byte) []byte { return append(b, e.out...) })
	verbatim(secData)
	if m.names != nil {
		section(secCustom, func(b []byte) []byte { return m.copyNames(appendName(b, "name"), e, leaves) })
	}
	return out
}

// refillHelper emits the function that refills a local counter.
func (e *emitter) refillHelper() {
	var start int
	e.out, start = reserve(e.out)
	e.out = append(e.out, 0)
	e.op(opLocalGet, 0)
	e.setGlobal()
	e.op(opCall, e.refill)
	e.getGlobal()
	e.out = append(e.out, opEnd)
	patch(e.out, start)
}
