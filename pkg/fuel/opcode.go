package fuel

// Opcodes of the binary format that the rewriter names.
const (
	opUnreachable  = 0x00
	opNop          = 0x01
	opBlock        = 0x02
	opLoop         = 0x03
	opIf           = 0x04
	opElse         = 0x05
	opEnd          = 0x0b
	opBr           = 0x0c
	opBrIf         = 0x0d
	opBrTable      = 0x0e
	opReturn       = 0x0f
	opCall         = 0x10
	opCallIndirect = 0x11
	opDrop         = 0x1a
	opSelect       = 0x1b
	opSelectTyped  = 0x1c
	opLocalGet     = 0x20
	opLocalSet     = 0x21
	opLocalTee     = 0x22
	opGlobalGet    = 0x23
	opGlobalSet    = 0x24
	opMemoryGrow   = 0x40
	opI32Const     = 0x41
	opI64Const     = 0x42
	opF32Const     = 0x43
	opF64Const     = 0x44
	opI32Eqz       = 0x45
	opI32LtU       = 0x49
	opI64LtS       = 0x53
	opI64GeS       = 0x59
	opI64Add       = 0x7c
	opI64Sub       = 0x7d
	opI64Shl       = 0x86
	opI64ShrU      = 0x88
	opI64ExtendU   = 0xad
	opRefNull      = 0xd0
	opRefFunc      = 0xd2
	opMisc         = 0xfc
	opVector       = 0xfd
)

// Sub-opcodes behind opMisc.
const (
	miscMemoryInit = 8
	miscDataDrop   = 9
	miscMemoryCopy = 10
	miscMemoryFill = 11
	miscTableInit  = 12
	miscElemDrop   = 13
	miscTableCopy  = 14
	miscTableGrow  = 15
	miscTableSize  = 16
	miscTableFill  = 17
)

const (
	emptyBlock = 0x40
	typeI32    = 0x7f
	typeI64    = 0x7e
	funcForm   = 0x60
)

// shape says what follows an opcode and how the scanner treats it.
type shape byte

const (
	shapeSpecial shape = iota // scanner.special knows it, or refuses it
	shapePlain                // no immediates, costs 1
	shapeIndex                // one unsigned number
	shapeMemory               // alignment and offset
	shapeLocal                // a local's index
	shapeControl              // blocks, branches, calls
)

// shapes classifies all one-byte opcodes. It is a function and not a variable
// so that nothing in the package can be changed at run time.
func shapes() (t [256]shape) {
	span := func(from, to int, s shape) {
		for i := from; i <= to; i++ {
			t[i] = s
		}
	}
	span(opUnreachable, opElse, shapeControl)
	t[opNop] = shapeSpecial
	span(opEnd, opCallIndirect, shapeControl)
	t[opSelect] = shapePlain
	span(opLocalGet, opLocalTee, shapeLocal)
	span(0x25, 0x26, shapeIndex)  // table.get, table.set
	span(0x28, 0x3e, shapeMemory) // loads and stores
	t[0x3f] = shapeIndex          // memory.size
	span(opI32Eqz, 0xc4, shapePlain)
	t[0xd1] = shapePlain // ref.is_null
	return t
}

// vectorShape says what follows a vector sub-opcode: a memory argument, a lane
// byte, both, sixteen bytes, or nothing.
func vectorShape(sub uint32) (memory bool, bytes uint32, ok bool) {
	switch {
	case sub <= 11 || sub == 92 || sub == 93: // loads and stores
		return true, 0, true
	case sub == 12 || sub == 13: // v128.const, i8x16.shuffle
		return false, 16, true
	case sub >= 21 && sub <= 34: // extract and replace lane
		return false, 1, true
	case sub >= 84 && sub <= 91: // load and store one lane
		return true, 1, true
	case sub <= 255:
		return false, 0, true
	}
	return false, 0, false // relaxed SIMD and later
}

// refused names the proposals whose opcodes are recognised and refused.
func refused(op byte) string {
	switch op {
	case 0x06, 0x07, 0x08, 0x09, 0x0a, 0x18, 0x19, 0x1f:
		return "exceptions"
	case 0x12, 0x13:
		return "tail calls"
	case 0x14, 0x15, 0xd3, 0xd4, 0xd5, 0xd6:
		return "typed function references"
	case 0xfb:
		return "garbage-collected types"
	case 0xfe:
		return "threads"
	}
	return ""
}
