package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// weightType is a type of weights that kernels read directly.
type weightType struct {
	name, element string
	size          int
	loadMem       func(m Mem) VecVirtual // eight of them as float32
}

func (w weightType) load(base Register, elements int) VecVirtual {
	return w.loadMem(Mem{Base: base, Disp: w.size * elements})
}

var f32 = weightType{"F32", "float32", 4, func(m Mem) VecVirtual {
	y := YMM()
	VMOVUPS(m, y)
	return y
}}

var f16 = weightType{"F16", "uint16", 2, func(m Mem) VecVirtual {
	y := YMM()
	VCVTPH2PS(m, y)
	return y
}}

var bf16 = weightType{"BF16", "uint16", 2, func(m Mem) VecVirtual {
	y := YMM()
	VPMOVZXWD(m, y)
	VPSLLD(U8(16), y, y)
	return y
}}

var weightTypes = []weightType{f32, f16, bf16}

// dots writes decoding's products: out (rows,tokens) = w (rows,n)·x (tokens,n)ᵀ. A weight vector is loaded and widened
// once for all tokens. Sums are alike for every number of rows: even and odd vectors apart for one token, otherwise
// in one accumulator. One token's products of several rows ask for the rows behind these, of which processors see nothing
// coming: rows are shorter than what their own looking ahead needs to begin.
func dots() {
	for _, w := range []weightType{f32, f16} {
		for tokens := 1; tokens <= 6; tokens++ {
			for _, rows := range []int{1, dotRows(tokens)} {
				dot(w, rows, tokens)
			}
		}
	}
}

// dotRows is how many rows of weights share the loads of x: what the sixteen registers allow.
func dotRows(tokens int) int { return [...]int{0, 4, 4, 4, 3, 2, 2}[tokens] }

func dot(w weightType, rows, tokens int) {
	function(fmt.Sprintf("dot%s%dx%d", w.name, rows, tokens), "func(n int, out *float32, w *"+w.element+", wRow uintptr, x *float32, xRow uintptr)")
	n, src, wRow, x, xRow := pointer("n"), pointer("w"), pointer("wRow"), pointer("x"), pointer("xRow")
	wTriple, xTriple, xLower := GP64(), GP64(), GP64()
	LEAQ(Mem{Base: wRow, Index: wRow, Scale: 2}, wTriple)
	LEAQ(Mem{Base: xRow, Index: xRow, Scale: 2}, xTriple)
	LEAQ(Mem{Base: x, Index: xRow, Scale: 4}, xLower)
	sets := 1
	if tokens == 1 {
		sets = 2
	}
	ahead := asksAhead(w, rows, tokens, src, wRow)
	acc := make([]VecVirtual, sets*rows*tokens)
	for i := range acc {
		acc[i] = zero()
	}
	step := func(set int) {
		weights := make([]VecVirtual, rows)
		for r := range rows {
			m := strided(src, wRow, wTriple, r)
			m.Disp = set * 8 * w.size
			weights[r] = w.loadMem(m)
		}
		for t := range tokens {
			m := strided(x, xRow, xTriple, t)
			if t >= 4 {
				m = strided(xLower, xRow, xTriple, t-4)
			}
			m.Disp = set * 32
			for r := range rows {
				VFMADD231PS(m, weights[r], acc[(set*rows+r)*tokens+t])
			}
		}
	}
	advance := func(vectors int) {
		ADDQ(U32(vectors*8*w.size), src)
		ADDQ(U32(vectors*32), x)
		if tokens > 4 {
			ADDQ(U32(vectors*32), xLower)
		}
	}
	SHRQ(U8(3), n)
	if sets == 2 {
		pairs := GP64()
		MOVQ(n, pairs)
		SHRQ(U8(1), pairs)
		loop("pairs", pairs, func() {
			if ahead != nil {
				for r := range rows {
					PREFETCHT0(strided(ahead, wRow, wTriple, r))
				}
				ADDQ(U32(2*8*w.size), ahead)
			}
			step(0)
			step(1)
			advance(2)
		})
		ANDQ(U8(1), n)
	}
	loop("ones", n, func() {
		step(0)
		advance(1)
	})
	out := pointer("out")
	for i := range rows * tokens {
		if sets == 2 {
			VADDPS(acc[rows*tokens+i], acc[i], acc[i])
		}
		VMOVSS(lanes(acc[i]), at(out, i))
	}
	done()
}

// asksAhead is a pointer to the row behind four rows of weights that come from memory, or nil where they are not asked for:
// with more tokens the products hide the wait.
func asksAhead(w weightType, rows, tokens int, src, wRow Register) Register {
	if w.name != "F16" || rows != 4 || tokens != 1 {
		return nil
	}
	ahead := GP64()
	LEAQ(Mem{Base: src, Index: wRow, Scale: 4}, ahead)
	return ahead
}

// converts writes the changes between float32 and 16 bits.
func converts() {
	for _, w := range []weightType{f16, bf16} {
		function("widen"+w.name, "func(n int, dst *float32, src *uint16)")
		n, dst, src := pointer("n"), pointer("dst"), pointer("src")
		SHRQ(U8(3), n)
		loop("loop", n, func() {
			VMOVUPS(w.load(src, 0), at(dst, 0))
			ADDQ(U8(16), src)
			ADDQ(U8(32), dst)
		})
		done()
	}
	function("narrowF16", "func(n int, dst *uint16, src *float32)")
	n, dst, src := pointer("n"), pointer("dst"), pointer("src")
	SHRQ(U8(3), n)
	loop("loop", n, func() {
		y := f32.load(src, 0)
		VCVTPS2PH(U8(0), y, Mem{Base: dst})
		ADDQ(U8(32), src)
		ADDQ(U8(16), dst)
	})
	done()
}

var nf4Values = [16]float32{
	-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
	-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
	0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
	0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
}

var codes Mem

// codebook is NF4's values in memory.
func codebook() Mem {
	if codes.Symbol.Name == "" {
		codes = GLOBL("nf4_values", RODATA|NOPTR)
		for i, v := range nf4Values {
			DATA(4*i, U32(math.Float32bits(v)))
		}
	}
	return codes
}

// nf4 writes the codebook's kernels.
func nf4() {
	table := codebook()
	for _, round := range []weightType{f32, f16, bf16} {
		// Dequantises n weights, a multiple of 32 as first and size are: dst = the scaled and rounded codebook's entries.
		function("nf4To"+round.name, "func(n, first, size int, dst *float32, codes *byte, absmax *float32)")
		dst := pointer("dst")
		look := lookWide
		if round.name == "F16" {
			look = lookHalf
		}
		nf4Steps(table, round, look, []Register{dst}, func(i int, weights VecVirtual) { VMOVUPS(weights, at(dst, 8*i)) })
		done()

		// The same weights' products with x (tokens,n): out (tokens). Of each 32 elements of x those of even index come first.
		for tokens := 1; tokens <= 4; tokens++ {
			function(fmt.Sprintf("dotNF4%sx%d", round.name, tokens), "func(n, first, size int, out *float32, codes *byte, absmax, x *float32, xRow uintptr)")
			x, xRow, triple := pointer("x"), pointer("xRow"), GP64()
			LEAQ(Mem{Base: xRow, Index: xRow, Scale: 2}, triple)
			sets := max(2, 4/tokens) // accumulators of a token
			acc := make([]VecVirtual, sets*tokens)
			for i := range acc {
				acc[i] = zero()
			}
			look := lookWideApart
			if round.name == "F16" {
				look = lookHalfApart()
			}
			nf4Steps(table, round, look, []Register{x}, func(i int, weights VecVirtual) {
				for t := range tokens {
					m := strided(x, xRow, triple, t)
					m.Disp = 32 * i
					VFMADD231PS(m, weights, acc[i%sets*tokens+t])
				}
			})
			out := pointer("out")
			for t := range tokens {
				for set := 1; set < sets; set++ {
					VADDPS(acc[set*tokens+t], acc[t], acc[t])
				}
				VMOVSS(lanes(acc[t]), at(out, t))
			}
			done()
		}
	}

	// The scales of n blocks, a multiple of eight, from their codes: values[code]·scale + offset, rounded twice.
	function("nestedScales", "func(n int, dst *float32, codes *byte, values *float32, scale, offset float32)")
	n, dst, from, values := pointer("n"), pointer("dst"), pointer("codes"), pointer("values")
	scale, offset := parameter("scale"), parameter("offset")
	SHRQ(U8(3), n)
	loop("loop", n, func() {
		index, all, y := YMM(), YMM(), zero() // zero depends on nothing, where a gather's target would
		VPMOVZXBD(Mem{Base: from}, index)
		VPCMPEQD(all, all, all)
		VGATHERDPS(all, Mem{Base: values, Index: index, Scale: 4}, y)
		VMULPS(scale, y, y)
		VADDPS(offset, y, y)
		VMOVUPS(y, at(dst, 0))
		ADDQ(U8(8), from)
		ADDQ(U8(32), dst)
	})
	done()

	// The largest magnitude; NaN is passed over.
	function("maxAbs", "func(n int, x *float32) float32")
	n, x := pointer("n"), pointer("x")
	magnitude, top := broadcast(bits(0x7fffffff)), zero()
	vectors("loop", n, []Register{x}, func(s span) {
		y := s.load(x)
		VANDPS(magnitude, y, y)
		VMAXPS(top, y, top)
	})
	storeTop(top)
}

// nf4Steps runs body for n weights, eight at a time: i counts the four vectors of each 32. Pointers to float32 move along.
func nf4Steps(table Mem, round weightType, look lookUp, pointers []Register, body func(i int, weights VecVirtual)) {
	codes := pointer("codes")
	var low, high VecVirtual
	blocks(func(absmax Register) {
		low, high = scaledTables(table, round, absmax)
	}, func(int) {
		look(low, high, codes, body)
		ADDQ(U8(16), codes)
		for _, p := range pointers {
			ADDQ(U32(128), p)
		}
	})
}

// blocks runs start for each block of n weights, and step for each 32 of its weights, by turns as number 0 and 1. The first block's part has first
// weights, every other block size, and the last may be short; each takes the next absmax.
func blocks(start func(absmax Register), step func(turn int)) {
	n, first, size, absmax := pointer("n"), pointer("first"), pointer("size"), pointer("absmax")
	for _, count := range []Register{n, first, size} {
		SHRQ(U8(5), count)
	}
	Label("blocks")
	TESTQ(n, n)
	JZ(LabelRef("end"))
	CMPQ(n, first)
	CMOVQLT(n, first)
	SUBQ(first, n)
	start(absmax)
	pairs := GP64()
	MOVQ(first, pairs)
	SHRQ(U8(1), pairs)
	loop("pairs", pairs, func() {
		step(0)
		step(1)
	})
	TESTQ(U32(1), first)
	JZ(LabelRef("even"))
	step(0)
	Label("even")
	MOVQ(size, first)
	ADDQ(U8(4), absmax)
	JMP(LabelRef("blocks"))
	Label("end")
}

// lookUp passes the 32 weights of 16 bytes of codes to body, eight at a time, of one block's two tables.
type lookUp func(low, high VecVirtual, codes Register, body func(i int, weights VecVirtual))

// lookWide looks 32 codes up in two tables of eight float32. VPERMPS reads three bits of a code, the blend the fourth as
// a sign, so that what lies above these does no harm. A byte's high nibble comes first.
func lookWide(low, high VecVirtual, codes Register, body func(i int, weights VecVirtual)) {
	for part := range 2 {
		bytes, shifted := XMM(), XMM()
		VMOVQ(Mem{Base: codes, Disp: 8 * part}, bytes)
		VPSRLW(U8(4), bytes, shifted)
		VPUNPCKLBW(bytes, shifted, bytes)
		for half := range 2 {
			index := YMM()
			VPMOVZXBD(bytes, index)
			body(2*part+half, permute(low, high, index))
			if half == 0 {
				VPSRLDQ(U8(8), bytes, bytes)
			}
		}
	}
}

func permute(low, high, index VecVirtual) VecVirtual {
	sign, negative, positive := YMM(), YMM(), YMM()
	VPSLLD(U8(28), index, sign)
	VPERMPS(low, index, negative)
	VPERMPS(high, index, positive)
	VBLENDVPS(sign, positive, negative, negative)
	return negative
}

// lookWideApart is lookWide with the even weights first.
func lookWideApart(low, high VecVirtual, codes Register, body func(i int, weights VecVirtual)) {
	for part := range 2 {
		odd, even := YMM(), YMM()
		VPMOVZXBD(Mem{Base: codes, Disp: 8 * part}, odd)
		VPSRLD(U8(4), odd, even)
		body(part, permute(low, high, even))
		body(2+part, permute(low, high, odd))
	}
}

// halfTables turns two scaled halves of the codebook into float16's low bytes and high bytes, in both lanes.
func halfTables(low, high VecVirtual) {
	apart := bytes16("bytes_apart", 0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15)
	for _, half := range []VecVirtual{low, high} {
		VCVTPS2PH(U8(0), half, half.AsX())
		VPSHUFB(apart, half.AsX(), half.AsX())
	}
	first := XMM()
	VPUNPCKLQDQ(high.AsX(), low.AsX(), first)
	VPUNPCKHQDQ(high.AsX(), low.AsX(), high.AsX())
	VINSERTI128(U8(1), first, first.AsY(), low)
	VINSERTI128(U8(1), high.AsX(), high, high)
}

// lookHalf looks 32 codes up as two bytes of a float16 each, and widens these.
func lookHalf(low, high VecVirtual, codes Register, body func(i int, weights VecVirtual)) {
	nibble := bytes16("nibble", 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15)
	bytes, shifted, later := XMM(), XMM(), XMM()
	VMOVDQU(Mem{Base: codes}, bytes)
	VPSRLW(U8(4), bytes, shifted)
	VPAND(nibble, bytes, bytes)
	VPAND(nibble, shifted, shifted)
	VPUNPCKHBW(bytes, shifted, later)
	VPUNPCKLBW(bytes, shifted, bytes)
	index := YMM()
	VINSERTI128(U8(1), later, bytes.AsY(), index)
	halves(low, high, index, body)
}

// lookHalfApart is lookHalf with the even weights first, so that codes need no putting in order.
func lookHalfApart() lookUp {
	nibble, shifts := broadcast(bits(0x0f0f0f0f)), YMM()
	VPMOVZXBD(bytes16("even_odd", 4, 4, 4, 4, 0, 0, 0, 0), shifts)
	return func(low, high VecVirtual, codes Register, body func(i int, weights VecVirtual)) {
		index := YMM()
		VBROADCASTI128(Mem{Base: codes}, index)
		VPSRLVD(shifts, index, index)
		VPAND(nibble, index, index)
		halves(low, high, index, body)
	}
}

// halves looks 32 codes up and widens them: a lane's lower and upper half are two vectors of eight in order.
func halves(low, high, index VecVirtual, body func(i int, weights VecVirtual)) {
	lower, upper, first, second := YMM(), YMM(), YMM(), YMM()
	VPSHUFB(index, low, lower)
	VPSHUFB(index, high, upper)
	VPUNPCKLBW(upper, lower, first)
	VPUNPCKHBW(upper, lower, second)
	for i, source := range []VecVirtual{first, second, first, second} {
		weights := YMM()
		if i < 2 {
			VCVTPH2PS(source.AsX(), weights)
		} else {
			VEXTRACTI128(U8(1), source, weights.AsX())
			VCVTPH2PS(weights.AsX(), weights)
		}
		body(i, weights)
	}
}

var tables = map[string]Mem{}

// bytes16 is sixteen bytes in memory.
func bytes16(name string, values ...byte) Mem {
	m, ok := tables[name]
	if !ok {
		m = GLOBL(name, RODATA|NOPTR)
		for i, v := range values {
			DATA(i, U8(v))
		}
		tables[name] = m
	}
	return m
}

// strided is the start of row i of four.
func strided(base, stride, triple Register, i int) Mem {
	m := Mem{Base: base}
	switch i {
	case 1, 2:
		m.Index, m.Scale = stride, uint8(i)
	case 3:
		m.Index, m.Scale = triple, 1
	}
	return m
}

// roundTo rounds a vector to a type and back, to the nearest even.
func roundTo(w weightType, y VecVirtual) {
	switch w.name {
	case "F16":
		VCVTPS2PH(U8(0), y, y.AsX())
		VCVTPH2PS(y.AsX(), y)
	case "BF16":
		odd := YMM()
		VPSRLD(U8(16), y, odd)
		VPAND(broadcast(bits(1)), odd, odd)
		VPADDD(broadcast(bits(0x7fff)), y, y)
		VPADDD(odd, y, y)
		VPAND(broadcast(bits(0xffff0000)), y, y)
	}
}

// storeTop returns the largest element of a vector.
func storeTop(y VecVirtual) {
	Store(topLane(y), ReturnIndex(0))
	done()
}

// topLane is the largest element of a vector, in the first of an XMM register.
func topLane(y VecVirtual) VecVirtual {
	x, other := XMM(), XMM()
	VEXTRACTF128(U8(1), y, x)
	VMAXPS(y.AsX(), x, x)
	VPERMILPS(U8(0x4e), x, other)
	VMAXPS(other, x, x)
	VPERMILPS(U8(0xb1), x, other)
	VMAXPS(other, x, x)
	return x
}
