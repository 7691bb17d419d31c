package fuel

import (
	"bytes"
	"strings"

	"peercompute/pkg/mesh"
)

// Section numbers of the binary format.
const (
	secCustom = iota
	secType
	secImport
	secFunction
	secTable
	secMemory
	secGlobal
	secExport
	secStart
	secElement
	secCode
	secData
	secDataCount
	secTag
)

// funcType is a function type; both slices point into the input.
type funcType struct{ params, results []byte }

// module is what the rewriter knows of the input.
type module struct {
	src      []byte
	sections [secTag]span // by number; absent sections are empty with has false
	has      [secTag]bool
	names    []byte // function names: content of the name section, or nil

	types       []funcType
	importFuncs []uint32 // type of each imported function
	globals     uint32   // imported and defined
	imported    uint32   // imported globals among them
	funcs       []fn

	imports []Import
	exports []Export
}

type span struct{ from, to uint32 }

func (m *module) section(n int) *reader {
	s := m.sections[n]
	return &reader{b: m.src[s.from:s.to]}
}

func (m *module) funcCount() uint32 { return uint32(len(m.importFuncs) + len(m.funcs)) }

func decode(src []byte) (*module, error) {
	if len(src) > MaxModuleSize {
		return nil, tooLarge("bytes", MaxModuleSize)
	}
	if len(src) < 8 || !bytes.Equal(src[:4], []byte("\x00asm")) {
		return nil, malformed("it does not begin like one")
	}
	switch v := src[4:8]; {
	case v[2] == 1 && v[3] == 0:
		return nil, mesh.Errorf(mesh.Unsupported, "this is a WebAssembly component; peers run core modules").
			WithHint("build a core module for WASI preview 1 instead (for example --target wasm32-wasip1), or extract it: wasm-tools component unbundle")
	case !bytes.Equal(v, []byte{1, 0, 0, 0}):
		return nil, unsupported("an unknown version of the binary format")
	}
	m := &module{src: src}
	if err := m.findSections(); err != nil {
		return nil, err
	}
	for _, step := range []func() error{m.decodeTypes, m.decodeImports, m.decodeFunctions, m.decodeTables, m.decodeMemories, m.decodeRest, m.decodeExports, m.decodeCode} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *module) findSections() error {
	r := reader{b: m.src, i: 8}
	for r.more() {
		id := r.byte()
		size := r.u32()
		from := r.i
		body := r.take(size)
		if r.bad {
			return malformed("a section is cut short")
		}
		switch {
		case id == secCustom:
			c := reader{b: body}
			if c.name() == "name" && !c.bad {
				m.names = body[c.i:]
			}
		case id == secTag:
			return unsupported("exceptions")
		case id > secTag:
			return unsupported("an unknown section")
		case m.has[id]:
			return malformed("a section is there twice")
		default:
			m.has[id] = true
			m.sections[id] = span{uint32(from), uint32(r.i)}
		}
	}
	return nil
}

func validType(t byte) bool { return t >= 0x7b && t <= 0x7f || t == 0x70 || t == 0x6f }

func (m *module) valueTypes(r *reader) []byte {
	ts := r.take(r.u32())
	for _, t := range ts {
		if !validType(t) {
			r.fail()
		}
	}
	return ts
}

func (m *module) decodeTypes() error {
	r := m.section(secType)
	if !r.more() {
		return nil
	}
	n := r.count(3)
	m.types = make([]funcType, 0, n)
	for range n {
		if form := r.byte(); !r.bad && form != funcForm {
			return unsupported("types other than functions")
		}
		m.types = append(m.types, funcType{params: m.valueTypes(r), results: m.valueTypes(r)})
	}
	return finish(r, "its types")
}

func finish(r *reader, what string) error {
	if r.bad || r.more() {
		return malformed(what + " cannot be read")
	}
	return nil
}

func (m *module) decodeImports() error {
	r := m.section(secImport)
	if !r.more() {
		return nil
	}
	n := r.count(4)
	for range n {
		mod, name := r.name(), r.name()
		kind := ExternKind(r.byte())
		if r.bad {
			break
		}
		if strings.HasPrefix(mod, reservedPrefix) {
			return reserved("import", mod)
		}
		switch kind {
		case ExternFunc:
			t := r.u32()
			if int(t) >= len(m.types) {
				return malformed("an imported function has no type")
			}
			m.importFuncs = append(m.importFuncs, t)
		case ExternTable:
			r.byte()
			if err := limits(r); err != nil {
				return err
			}
		case ExternMemory:
			if err := limits(r); err != nil {
				return err
			}
		case ExternGlobal:
			r.take(2)
			m.globals++
			m.imported++
		default:
			return unsupported("an unknown kind of import")
		}
		m.imports = append(m.imports, Import{Module: mod, Name: name, Kind: kind})
	}
	return finish(r, "its imports")
}

func limits(r *reader) error {
	switch r.byte() {
	case 0:
		r.u32()
	case 1:
		r.u32()
		r.u32()
	case 2, 3:
		return unsupported("shared memory (threads)")
	default:
		return unsupported("64-bit memory")
	}
	return nil
}

func (m *module) decodeTables() error {
	r := m.section(secTable)
	if !r.more() {
		return nil
	}
	for range r.count(3) {
		r.byte() // what it holds
		if err := limits(r); err != nil {
			return err
		}
	}
	return finish(r, "its tables")
}

func (m *module) decodeMemories() error {
	r := m.section(secMemory)
	if !r.more() {
		return nil
	}
	for range r.count(2) {
		if err := limits(r); err != nil {
			return err
		}
	}
	return finish(r, "its memories")
}

func (m *module) decodeFunctions() error {
	r := m.section(secFunction)
	if !r.more() {
		return nil
	}
	n := r.count(1)
	if n > MaxFunctions {
		return tooLarge("functions", MaxFunctions)
	}
	m.funcs = make([]fn, n)
	for i := range m.funcs {
		t := r.u32()
		if int(t) >= len(m.types) {
			return malformed("a function has no type")
		}
		m.funcs[i].typ = t
	}
	return finish(r, "its functions")
}

// decodeRest counts the globals and checks what the element segments, the data
// segments and the start section refer to.
func (m *module) decodeRest() error {
	_, n, err := m.copyGlobals(nil, m.refer)
	if err != nil {
		return err
	}
	m.globals += uint32(n)
	if _, err := m.copyElements(nil, m.refer); err != nil {
		return err
	}
	if m.has[secStart] {
		r := m.section(secStart)
		m.function(r)
		if err := finish(r, "its start section"); err != nil {
			return err
		}
	}
	return m.checkData()
}

func (m *module) decodeExports() error {
	r := m.section(secExport)
	if !r.more() {
		return nil
	}
	n := r.count(3)
	m.exports = make([]Export, 0, n)
	for range n {
		e := Export{Name: r.name(), Kind: ExternKind(r.byte()), index: r.u32()}
		if strings.HasPrefix(e.Name, reservedPrefix) {
			return reserved("export", e.Name)
		}
		if e.Kind == ExternFunc && e.index >= m.funcCount() || e.Kind == ExternGlobal && e.index >= m.globals {
			return malformed("it exports what does not exist")
		}
		m.exports = append(m.exports, e)
	}
	return finish(r, "its exports")
}

func reserved(what, name string) error {
	return mesh.Errorf(mesh.Invalid, "the WebAssembly module has an %s named %q; names that begin with %q are reserved for metering", what, name, reservedPrefix).
		WithHint("rename it, and give the plain module: metering is added here")
}

// decodeCode finds the extent of each function's body; the bodies are scanned later.
func (m *module) decodeCode() error {
	r := m.section(secCode)
	n := 0
	if r.more() {
		n = r.count(2)
	}
	if n != len(m.funcs) {
		return malformed("its functions and their bodies differ in number")
	}
	base := m.sections[secCode].from
	for i := range m.funcs {
		size := r.u32()
		m.funcs[i].body = span{base + uint32(r.i), base + uint32(r.i) + size}
		r.take(size)
		if r.bad {
			return malformed("a function body is cut short")
		}
	}
	if len(m.funcs) == 0 {
		return nil
	}
	return finish(r, "its code")
}
