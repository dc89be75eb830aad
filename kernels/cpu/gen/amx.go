package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// The layout that the tiles' kernels share. A step is 32 elements of the inner dimension, of which element i and 16+i make
// a pair. A row of weights has its upper halves, amxHalf bytes of them, then its lower ones.
const (
	amxHalf    = 512
	amxRow     = 2*amxHalf + 64 // bytes of two parts: rows of a tile must not compete for the same places in the cache
	amxRow3    = 3*amxHalf + 64 // and of three
	amxColumns = 2048           // bytes of a part of a step of 32 columns
)

func amx() {
	amxProduct("amxProduct", amxRow, 3*amxColumns, []amxParts{{1, 1}, {1, 0}, {0, 0}, {0, 1}, {0, 2}})
	amxProduct("amxProductBack", amxRow3, 2*amxColumns, []amxParts{{1, 1}, {0, 1}, {0, 0}, {1, 0}, {2, 0}})
	amxSplit()
	for _, w := range []weightType{f16, bf16} {
		amxRows(w)
	}
	for _, w := range weightTypes {
		amxColumnsOf(w)
	}
	amxRowsNF4()
	amxRowsThree()
}

// tile instructions, which the assembler does not know. Their operands are physical registers.

func emit(code ...byte) {
	for _, b := range code {
		Instruction(&ir.Instruction{Opcode: "BYTE", Operands: []Op{U8(b)}})
	}
}

const (
	prefixNone = 0
	prefixF3   = 2
	prefixF2   = 3
)

// tileMemory moves a tile from or to base+disp, its rows stride bytes apart; both are among the first eight registers.
func tileMemory(prefix byte, tile int, base, stride Physical, disp int) {
	emit(0xc4, 0xe2, 0x78|prefix, 0x4b, 0x84|byte(tile)<<3, byte(stride.PhysicalIndex()&7)<<3|byte(base.PhysicalIndex()&7),
		byte(disp), byte(disp>>8), byte(disp>>16), byte(disp>>24))
}

func tileLoad(tile int, base, stride Physical, disp int) {
	tileMemory(prefixF2, tile, base, stride, disp)
}
func tileStore(tile int, base, stride Physical, disp int) {
	tileMemory(prefixF3, tile, base, stride, disp)
}

// tileProduct adds a·b to c.
func tileProduct(c, a, b int) {
	emit(0xc4, 0xe2, byte(15-b)<<3|prefixF3, 0x5c, 0xc0|byte(c)<<3|byte(a))
}

func tileConfigure(base Physical) { emit(0xc4, 0xe2, 0x78, 0x49, byte(base.PhysicalIndex()&7)) }
func tileRelease()                { emit(0xc4, 0xe2, 0x78, 0x49, 0xc0) }

// amxProduct: c (32·blocks, 32·panels) += a·b. The operand of three parts is b, whose panels lie panel bytes apart, or a. Of the
// products of parts the smallest come first.
func amxProduct(name string, row, steps int, order []amxParts) {
	function(name, "func(blocks, panels, steps int, a, b *uint16, panel uintptr, c *float32, cRow uintptr)")
	// a and its other rows lie at AX and CX, DX apart; b at BX, SI apart, which is c's stride in between; c at DI.
	LEAQ(tileConfig(), RAX)
	tileConfigure(RAX)
	Load(Param("blocks"), R8)
	MOVQ(U32(row), RDX)
	Label("block")
	Load(Param("panels"), R9)
	Load(Param("b"), R10)
	Load(Param("c"), RDI)
	Label("panel")
	Load(Param("a"), RAX)
	LEAQ(Mem{Base: RAX, Disp: 16 * row}, RCX)
	MOVQ(R10, RBX)
	move := func(f func(tile int, base, stride Physical, disp int)) {
		Load(Param("cRow"), RSI)
		MOVQ(RSI, R11)
		SHLQ(U8(4), R11)
		f(0, RDI, RSI, 0)
		f(1, RDI, RSI, 64)
		ADDQ(R11, RDI)
		f(2, RDI, RSI, 0)
		f(3, RDI, RSI, 64)
		SUBQ(R11, RDI)
	}
	move(tileLoad)
	MOVQ(U32(64), RSI)
	Load(Param("steps"), R12)
	Label("step")
	now := amxParts{-1, -1}
	for _, next := range order {
		if next.a != now.a {
			tileLoad(4, RAX, RDX, next.a*amxHalf)
			tileLoad(5, RCX, RDX, next.a*amxHalf)
		}
		if next.b != now.b {
			tileLoad(6, RBX, RSI, 2048*next.b)
			tileLoad(7, RBX, RSI, 2048*next.b+1024)
		}
		now = next
		tileProduct(0, 4, 6)
		tileProduct(2, 5, 6)
		tileProduct(1, 4, 7)
		tileProduct(3, 5, 7)
	}
	ADDQ(U8(64), RAX)
	ADDQ(U8(64), RCX)
	ADDQ(U32(steps), RBX)
	DECQ(R12)
	JNZ(LabelRef("step"))
	move(tileStore)
	SUBQ(I8(-128), RDI)
	ADDQ(Load(Param("panel"), RSI), R10)
	DECQ(R9)
	JNZ(LabelRef("panel"))
	// the next 32 rows: the arguments move along
	Load(Param("cRow"), RSI)
	SHLQ(U8(5), RSI)
	ADDQ(Load(Param("c"), RDI), RSI)
	Store(RSI, Param("c"))
	Load(Param("a"), RAX)
	ADDQ(U32(32*row), RAX)
	Store(RAX, Param("a"))
	DECQ(R8)
	JNZ(LabelRef("block"))
	tileRelease()
	RET()
}

// amxParts is the parts of a and b that are multiplied.
type amxParts struct{ a, b int }

var tileConfiguration Mem

// tileConfig has all eight tiles of 16 rows of 64 bytes.
func tileConfig() Mem {
	if tileConfiguration.Symbol.Name == "" {
		tileConfiguration = GLOBL("tile_config", RODATA|NOPTR)
		DATA(0, U8(1))
		for t := range 8 {
			DATA(16+2*t, U16(64))
		}
		for t := range 8 {
			DATA(48+t, U8(16))
		}
		DATA(56, U64(0))
	}
	return tileConfiguration
}

// amxPair joins the upper halves of two vectors' elements to pairs.
func amxPair(upper VecVirtual, a, b VecVirtual) VecVirtual {
	z := ZMM()
	VPSRLD(U8(16), a, z)
	VPTERNLOGD(U8(0xf8), upper, b, z) // z | upper & b
	return z
}

// amxSplit writes steps of a panel (k,32) of float32 as pairs of their three parts.
func amxSplit() {
	function("amxSplit", "func(steps int, dst *uint16, src *float32)")
	steps, dst, src := pointer("steps"), pointer("dst"), pointer("src")
	upper := wideBroadcast(bits(0xffff0000))
	loop("steps", steps, func() {
		count := GP64()
		MOVQ(U32(16), count)
		Label("pair")
		for half := range 2 {
			var v [2]VecVirtual
			for i := range v {
				v[i] = ZMM()
				VMOVUPS(Mem{Base: src, Disp: 2048*i + 64*half}, v[i])
			}
			amxStore(upper, v, 3, amxColumns, Mem{Base: dst, Disp: 1024 * half})
		}
		ADDQ(U32(128), src)
		ADDQ(U8(64), dst)
		DECQ(count)
		JNZ(LabelRef("pair"))
		ADDQ(U32(2048), src)
		ADDQ(U32(3*amxColumns-1024), dst)
	})
	done()
}

// amxLoad is sixteen elements as float32.
func amxLoad(w weightType, m Mem) VecVirtual {
	z := ZMM()
	switch w.name {
	case "F16":
		VCVTPH2PS(m, z)
	case "BF16":
		VPMOVZXWD(m, z)
		VPSLLD(U8(16), z, z)
	default:
		VMOVUPS(m, z)
	}
	return z
}

// amxStore writes the parts of pairs of elements, part bytes apart.
func amxStore(upper VecVirtual, v [2]VecVirtual, parts, part int, to Mem) {
	for i := range parts {
		VMOVDQU64(amxPair(upper, v[0], v[1]), to.Offset(part*i))
		if i == parts-1 {
			break
		}
		for i := range v {
			top := ZMM()
			VPANDD(upper, v[i], top)
			VSUBPS(top, v[i], v[i])
		}
	}
}

// amxRows writes steps of rows of weights as pairs of their two parts.
func amxRows(w weightType) { amxRowsOf("amxRows"+w.name, w, 2, amxRow) }

// amxRowsThree is amxRows of float32 and three parts.
func amxRowsThree() { amxRowsOf("amxRowsThree", f32, 3, amxRow3) }

func amxRowsOf(name string, w weightType, parts, row int) {
	function(name, "func(rows, steps int, dst *uint16, src *"+w.element+", srcRow, ahead uintptr)")
	rows, dst, src, ahead := pointer("rows"), pointer("dst"), pointer("src"), pointer("ahead")
	upper := wideBroadcast(bits(0xffff0000))
	loop("rows", rows, func() {
		n, to, from := pointer("steps"), GP64(), GP64()
		MOVQ(dst, to)
		MOVQ(src, from)
		loop("steps", n, func() {
			PREFETCHT1(Mem{Base: from, Index: ahead, Scale: 1})
			v := [2]VecVirtual{amxLoad(w, Mem{Base: from}), amxLoad(w, Mem{Base: from, Disp: 16 * w.size})}
			amxStore(upper, v, parts, amxHalf, Mem{Base: to})
			ADDQ(U32(32*w.size), from)
			ADDQ(U8(64), to)
		})
		ADDQ(U32(row), dst)
		ADDQ(Load(Param("srcRow"), GP64()), src)
	})
	done()
}

// amxColumnsOf writes steps of 32 rows of 32 columns of weights as pairs of their two parts.
func amxColumnsOf(w weightType) {
	function("amxColumns"+w.name, "func(steps int, dst *uint16, src *"+w.element+", srcRow, ahead uintptr)")
	steps, dst, src, srcRow, ahead := pointer("steps"), pointer("dst"), pointer("src"), pointer("srcRow"), pointer("ahead")
	upper, lower := wideBroadcast(bits(0xffff0000)), GP64()
	MOVQ(srcRow, lower)
	SHLQ(U8(4), lower)
	loop("steps", steps, func() {
		count := GP64()
		MOVQ(U32(16), count)
		Label("pair")
		other := GP64()
		LEAQ(Mem{Base: src, Index: lower, Scale: 1}, other)
		PREFETCHT1(Mem{Base: src, Index: ahead, Scale: 1})
		PREFETCHT1(Mem{Base: other, Index: ahead, Scale: 1})
		for half := range 2 {
			disp := 16 * w.size * half
			v := [2]VecVirtual{amxLoad(w, Mem{Base: src, Disp: disp}), amxLoad(w, Mem{Base: other, Disp: disp})}
			amxStore(upper, v, 2, amxColumns, Mem{Base: dst, Disp: 1024 * half})
		}
		ADDQ(srcRow, src)
		ADDQ(U8(64), dst)
		DECQ(count)
		JNZ(LabelRef("pair"))
		ADDQ(lower, src)
		ADDQ(U32(2*amxColumns-1024), dst)
	})
	done()
}

// amxRowsNF4 is amxRows for blocks of 64 weights that are rounded to float16. The codebook's entries, scaled and rounded,
// stand as two tables of words, the upper and the lower parts, each twice since VPERMW reads five bits of a byte.
func amxRowsNF4() {
	table := codebook()
	order := GLOBL("nf4_pairs", RODATA|NOPTR)
	for p := range 16 {
		for i, b := range []int{p / 2, 8 + p/2} {
			DATA(4*p+2*i, U8(uint8(b)))
			DATA(4*p+2*i+1, U8(0x80))
		}
	}
	shift := GLOBL("nf4_nibbles", RODATA|NOPTR)
	for p := range 16 {
		for i := range 2 {
			DATA(4*p+2*i, U16(uint16(4-p%2*4)))
		}
	}
	function("amxRowsNF4", "func(rows, blocks int, dst *uint16, codes *byte, codeRow uintptr, absmax *float32, absmaxRow, ahead uintptr)")
	rows, dst, codes, absmax, ahead := pointer("rows"), pointer("dst"), pointer("codes"), pointer("absmax"), pointer("ahead")
	upper, values, bytes, nibbles := wideBroadcast(bits(0xffff0000)), ZMM(), ZMM(), ZMM()
	VMOVUPS(table, values)
	VMOVDQU64(order, bytes)
	VMOVDQU64(shift, nibbles)
	loop("rows", rows, func() {
		n, to, from, scales := pointer("blocks"), GP64(), GP64(), GP64()
		MOVQ(dst, to)
		MOVQ(codes, from)
		MOVQ(absmax, scales)
		loop("blocks", n, func() {
			PREFETCHT1(Mem{Base: from, Index: ahead, Scale: 1})
			scaled, rest := wideBroadcast(Mem{Base: scales}), ZMM()
			VMULPS(values, scaled, scaled)
			wideRound(f16, scaled)
			VPANDD(upper, scaled, rest)
			VSUBPS(rest, scaled, rest)
			var tables [2]VecVirtual
			for i, v := range []VecVirtual{scaled, rest} {
				VPSRLD(U8(16), v, v)
				VPMOVDW(v, v.AsY())
				tables[i] = ZMM()
				VINSERTI64X4(U8(1), v.AsY(), v, tables[i])
			}
			for step := range 2 {
				index := ZMM()
				VBROADCASTI32X4(Mem{Base: from, Disp: 16 * step}, index)
				VPSHUFB(bytes, index, index)
				VPSRLVW(nibbles, index, index)
				for i, t := range tables {
					words := ZMM()
					VPERMW(t, index, words)
					VMOVDQU64(words, Mem{Base: to, Disp: 64*step + amxHalf*i})
				}
			}
			ADDQ(U8(32), from)
			ADDQ(U8(4), scales)
			ADDQ(U32(128), to)
		})
		ADDQ(U32(amxRow), dst)
		ADDQ(Load(Param("codeRow"), GP64()), codes)
		ADDQ(Load(Param("absmaxRow"), GP64()), absmax)
	})
	done()
}
