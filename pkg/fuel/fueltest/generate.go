// Package fueltest makes WebAssembly modules from bytes, for tests that compare
// what metering does to them. Every byte string gives a valid module; it may
// loop for ever, trap or recurse deeply.
package fueltest

// The module that Generate makes imports env.look, a function without
// parameters and results, and exports this function, (i32) -> (i32), and a memory.
const (
	Entry  = "run"
	Memory = "memory"
)

const (
	functions = 5 // guest functions, each (i32) -> (i32) except the leaf at index 1: (i32, i32) -> (i32)
	leafIndex = 2 // function index of the leaf: behind the import and the first function
	locals    = 6 // of each function: parameters, scratch, loop counters, selector
	maxDepth  = 7
	maxCode   = 3000
)

const i32 = 0x7f

// Types of the module, by index.
const (
	typeLook  = iota // () -> ()
	typeFunc         // (i32) -> (i32)
	typeLeaf         // (i32 i32) -> (i32)
	typePair         // () -> (i32 i32)
	typeParam        // (i32) -> (i32 i32)
)

// Generate returns the module that data stands for.
func Generate(data []byte) []byte {
	g := &generator{data: data}
	out := []byte("\x00asm\x01\x00\x00\x00")
	out = section(out, 1, []byte{
		5,
		0x60, 0, 0,
		0x60, 1, i32, 1, i32,
		0x60, 2, i32, i32, 1, i32,
		0x60, 0, 2, i32, i32,
		0x60, 1, i32, 2, i32, i32,
	})
	out = section(out, 2, []byte("\x01\x03env\x04look\x00\x00"))
	out = section(out, 3, []byte{functions, typeFunc, typeLeaf, typeFunc, typeFunc, typeFunc})
	out = section(out, 4, []byte{1, 0x70, 0, functions + 1})
	out = section(out, 5, []byte{1, 0, 1})
	out = section(out, 6, []byte{1, i32, 1, 0x41, 7, 0x0b})
	export := append([]byte{2, byte(len(Entry))}, Entry...)
	export = append(export, 0, functions, byte(len(Memory)))
	export = append(export, Memory...)
	out = section(out, 7, append(export, 2, 0))
	elements := []byte{1, 0, 0x41, 0, 0x0b, functions + 1}
	for i := range byte(functions + 1) {
		elements = append(elements, min(i, 1)) // the others are only called directly
	}
	out = section(out, 9, elements)
	code := []byte{functions}
	for i := range functions {
		body := g.function(i)
		code = append(leb(code, uint32(len(body))), body...)
	}
	return section(out, 10, code)
}

func section(out []byte, id byte, body []byte) []byte {
	return append(leb(append(out, id), uint32(len(body))), body...)
}

func leb(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

// label is an open block: what a branch to it carries, and what falls out of it.
type label struct{ branch int }

type generator struct {
	data   []byte
	b      []byte
	labels []label
	self   int // index of the function among the defined ones
	params int
}

func (g *generator) next() int {
	if len(g.data) == 0 {
		return 0
	}
	c := g.data[0]
	g.data = g.data[1:]
	return int(c)
}

func (g *generator) pick(n int) int { return g.next() % n }

func (g *generator) put(b ...byte) { g.b = append(g.b, b...) }

func (g *generator) constant(v int) {
	g.put(0x41)
	for {
		c := byte(v & 0x7f)
		if v >>= 7; v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			g.put(c)
			return
		}
		g.put(c | 0x80)
	}
}

// spent reports whether this function should come to its end.
func (g *generator) spent(depth int) bool {
	return depth >= maxDepth || len(g.b) > maxCode || len(g.data) == 0
}

func (g *generator) function(i int) []byte {
	g.self, g.params = i, 1
	if i == leafIndex-1 {
		g.params = 2
	}
	g.b = []byte{1, byte(locals - g.params), i32}
	g.labels = append(g.labels[:0], label{1})
	if i == leafIndex-1 && g.pick(2) == 0 { // a static leaf
		g.put(0x20, 0, 0x20, 1, 0x6a, 0x20, 0, 0x73)
	} else {
		g.statements(0)
		g.expr(0)
	}
	g.put(0x0b)
	return g.b
}

func (g *generator) statements(depth int) {
	for n := g.pick(6); n > 0 && !g.spent(depth); n-- {
		g.statement(depth)
	}
}

func (g *generator) local() byte { return byte(g.pick(locals - 2)) }

func (g *generator) open(branch int, head ...byte) {
	g.put(head...)
	g.labels = append(g.labels, label{branch})
}

func (g *generator) close() {
	g.put(0x0b)
	g.labels = g.labels[:len(g.labels)-1]
}

func (g *generator) statement(depth int) {
	switch g.pick(20) {
	case 0, 1:
		g.expr(depth + 1)
		g.put(0x21, g.local())
	case 2:
		g.expr(depth + 1)
		g.put(0x1a)
	case 3:
		g.open(0, 0x02, 0x40)
		g.statements(depth + 1)
		g.close()
	case 4, 5: // a counted loop
		g.constant(g.pick(12))
		g.put(0x21, locals-2)
		g.open(0, 0x03, 0x40)
		g.statements(depth + 1)
		g.put(0x20, locals-2, 0x41, 1, 0x6b, 0x22, locals-2, 0x0d, 0)
		g.close()
	case 6: // a loop that is left by a branch
		g.open(0, 0x02, 0x40)
		g.open(0, 0x03, 0x40)
		g.statements(depth + 2)
		g.put(0x20, 1, 0x41, 1, 0x6a, 0x22, 1, 0x41, 15, 0x71, 0x45, 0x0d, 1)
		g.put(0x0c, 0)
		g.close()
		g.close()
	case 7:
		g.expr(depth + 1)
		g.open(0, 0x04, 0x40)
		g.statements(depth + 1)
		if g.pick(2) == 0 {
			g.put(0x05)
			g.statements(depth + 1)
		}
		g.close()
	case 8, 9:
		g.branch(depth)
	case 10:
		g.dispatch(depth)
	case 11:
		g.put(0x10, 0) // look
	case 12:
		g.bulk(depth)
	case 13:
		g.put(0x41, 0, 0x41)
		g.b = g.b[:len(g.b)-1]
		g.expr(depth + 1)
		g.put(0x36, 2, 8) // i32.store to a constant address
	case 14:
		g.expr(depth + 1)
		g.put(0x24, 0)
	case 15: // a block with two results
		g.open(2, 0x02, typePair)
		g.expr(depth + 1)
		g.expr(depth + 1)
		g.close()
		g.put(0x1a, 0x21, g.local())
	case 16: // a loop with a parameter
		g.expr(depth + 1)
		g.open(1, 0x03, typeParam)
		g.put(0x22, 1)
		g.statements(depth + 1)
		g.put(0x20, 0)
		g.close()
		g.put(0x1a, 0x1a)
	case 17:
		g.put(0x01)
	default:
		g.expr(depth + 1)
		g.put(0x21, locals-1)
	}
}

// branch leaves or repeats some open block.
func (g *generator) branch(depth int) {
	d := g.pick(len(g.labels))
	l := g.labels[len(g.labels)-1-d]
	values := func() {
		for range l.branch {
			g.expr(depth + 1)
		}
	}
	switch g.pick(6) {
	case 0, 1, 2:
		values()
		g.expr(depth + 1)
		g.put(0x0d, byte(d))
		for range l.branch {
			g.put(0x1a)
		}
	case 3:
		values()
		g.put(0x0c, byte(d))
	case 4:
		g.expr(depth + 1)
		g.put(0x0f)
	default: // a table of labels that all carry as many values
		var same []byte
		for i := range g.labels {
			if g.labels[len(g.labels)-1-i].branch == l.branch {
				same = append(same, byte(i))
			}
		}
		values()
		g.expr(depth + 1)
		n := g.pick(5)
		g.put(0x41, 3, 0x71, 0x0e, byte(n))
		for range n + 1 {
			g.put(same[g.pick(len(same))])
		}
	}
}

// dispatch is a loop of the kind that Go's compiler makes.
func (g *generator) dispatch(depth int) {
	const selector = locals - 1
	n := 2 + g.pick(3)
	g.put(0x41, byte(g.pick(n)), 0x21, selector)
	g.open(0, 0x02, 0x40) // exit
	g.open(0, 0x03, 0x40)
	for range n {
		g.open(0, 0x02, 0x40)
	}
	g.put(0x20, selector, 0x0e, byte(n))
	for i := range n {
		g.put(byte(i))
	}
	g.put(byte(n + 1)) // default: exit
	for i := range n {
		g.close()
		g.statements(depth + 2)
		if g.pick(2) == 0 {
			// Jump on if a condition holds; the loop's label is that many blocks out.
			g.expr(depth + 2)
			g.open(0, 0x04, 0x40)
			g.put(0x41, byte(g.pick(n+1)), 0x21, selector, 0x0c, byte(n-i))
			g.close()
		}
	}
	g.put(0x20, 1, 0x41, 1, 0x6a, 0x22, 1, 0x41, 7, 0x71, 0x45, 0x0d, 1)
	g.put(0x41, byte(g.pick(n+1)), 0x21, selector, 0x0c, 0)
	g.close()
	g.close()
}

// bulk writes or grows memory, mostly within bounds.
func (g *generator) bulk(depth int) {
	switch g.pick(4) {
	case 0:
		g.put(0x41, 16)
		g.expr(depth + 1)
		g.constant(g.pick(200))
		g.put(0xfc, 11, 0)
	case 1:
		g.constant(g.pick(200))
		g.constant(g.pick(200))
		g.constant(g.pick(200))
		g.put(0xfc, 10, 0, 0)
	case 2:
		g.expr(depth + 1)
		g.put(0x41, 3, 0x71, 0x41, 1, 0x76, 0x40, 0, 0x1a) // memory.grow by 0 or 1
	default:
		g.put(0x41, 0, 0x41, 1, 0x41, 2, 0xfc, 14, 0, 0) // table.copy
	}
}

// expr pushes one i32.
func (g *generator) expr(depth int) {
	if g.spent(depth) {
		g.put(0x20, 0)
		return
	}
	switch g.pick(18) {
	case 0, 1, 2:
		g.constant(g.next() - 128)
	case 3, 4, 5:
		g.put(0x20, g.local())
	case 6, 7:
		g.expr(depth + 1)
		g.expr(depth + 1)
		g.put([]byte{0x6a, 0x6b, 0x6c, 0x71, 0x73, 0x46, 0x48}[g.pick(7)])
	case 8:
		g.expr(depth + 1)
		g.put(0x22, g.local())
	case 9:
		g.put(0x23, 0)
	case 10:
		g.open(1, 0x02, i32)
		g.statements(depth + 1)
		g.expr(depth + 1)
		g.close()
	case 11:
		g.expr(depth + 1)
		g.open(1, 0x04, i32)
		g.statements(depth + 1)
		g.expr(depth + 1)
		g.put(0x05)
		g.expr(depth + 1)
		g.close()
	case 12:
		g.open(0, 0x03, i32)
		g.statements(depth + 1)
		g.expr(depth + 1)
		g.close()
	case 13:
		g.call(depth)
	case 14: // the leaf
		g.expr(depth + 1)
		g.expr(depth + 1)
		if g.self >= leafIndex {
			g.put(0x10, leafIndex)
		} else {
			g.put(0x6a)
		}
	case 15:
		g.put(0x41, 0, 0x28, 2, 8) // i32.load
	case 16:
		g.expr(depth + 1)
		g.expr(depth + 1)
		g.expr(depth + 1)
		g.put(0x1b)
	default: // may trap
		g.expr(depth + 1)
		g.expr(depth + 1)
		g.put(0x6d)
	}
}

// call calls an earlier function, or this one with a smaller argument.
func (g *generator) call(depth int) {
	if g.self == 0 || g.pick(3) == 0 && g.params == 1 {
		g.put(0x20, 0, 0x41, 0, 0x4a) // param > 0
		g.open(1, 0x04, i32)
		g.put(0x20, 0, 0x41, 15, 0x71, 0x41, 1, 0x6b, 0x10, byte(g.self+1))
		g.put(0x05)
		g.expr(depth + 1)
		g.close()
		return
	}
	g.expr(depth + 1)
	if g.pick(2) == 0 {
		g.put(0x41, 1, 0x11, typeFunc, 0) // through the table
		return
	}
	callee := 1 + g.pick(g.self)
	if callee == leafIndex {
		callee--
	}
	g.put(0x10, byte(callee))
}
