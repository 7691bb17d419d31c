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
	types := &typeTable{guest: len(m.types), wraps: make(map[string]uint32)}
	refillType := types.add(nil, nil)
	helperType := types.add([]byte{typeI64}, []byte{typeI64})
	extra := &extras{next: helper + 1}
	if o.on(StaticLeaves) {
		m.findLeaves(s.events, extra)
	}
	if o.on(PassedCounter) {
		m.findTakers(extra, types)
	}
	e := &emitter{
		m: m, src: m.src, events: s.events, firsts: s.firsts, types: types,
		counter: m.globals, refill: imports, helper: helper,
		localCounter: o.on(LocalCounter), coldRefill: o.on(ColdRefill), invertedLoops: o.on(InvertedLoops), potentials: o.on(Potentials),
		sunkEntry: o.on(SunkEntry), threading: o.on(Threading), unrolling: o.on(Unrolling),
	}
	code := m.sections[secCode]
	e.out = make([]byte, 0, int(code.to-code.from)*3/2+64)
	e.out = appendU32(e.out, defined+1+uint32(len(extra.funcs)))
	for i := range m.funcs {
		if f := &m.funcs[i]; f.takes && f.outside {
			e.entrance(f)
		} else {
			e.function(f)
		}
	}
	e.refillHelper()
	for _, i := range extra.funcs {
		if f := &m.funcs[i]; f.takes {
			e.function(f)
		} else {
			e.leafCopy(f)
		}
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
	section(secFunction, func(b []byte) []byte {
		b = appendU32(b, defined+1+uint32(len(extra.types)))
		for i := range m.funcs {
			b = appendU32(b, m.funcs[i].outer)
		}
		b = appendU32(b, helperType)
		for _, t := range extra.types {
			b = appendU32(b, t)
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
		section(secCustom, func(b []byte) []byte { return m.copyNames(appendName(b, "name"), e, extra.funcs) })
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
