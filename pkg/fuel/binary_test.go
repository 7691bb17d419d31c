package fuel

// parts is a module put together by hand, also an invalid one.
type parts struct {
	types, imports, funcs, tables, memories, globals, exports, start, elements, code, data []byte
}

func (p parts) bytes() []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	for i, s := range [][]byte{p.types, p.imports, p.funcs, p.tables, p.memories, p.globals, p.exports, p.start, p.elements, p.code, p.data} {
		if s != nil {
			out = append(appendU32(append(out, byte(i+1)), uint32(len(s))), s...)
		}
	}
	return out
}

// oneFunc is a module with one exported function "f" without parameters and
// results, of these operators and an end.
func oneFunc(operators ...byte) parts {
	return oneFuncOf([]byte{0}, operators)
}

// oneFuncOf is the same with local declarations, their number included.
func oneFuncOf(locals, operators []byte) parts {
	body := append(append(append([]byte{}, locals...), operators...), opEnd)
	code := appendU32([]byte{1}, uint32(len(body)))
	return parts{
		types:   []byte{1, funcForm, 0, 0},
		funcs:   []byte{1, 0},
		exports: []byte{1, 1, 'f', 0, 0},
		code:    append(code, body...),
	}
}
