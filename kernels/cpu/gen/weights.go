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
// in one accumulator.
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
	row := func(base, stride, triple Register, i int) Mem {
		m := Mem{Base: base}
		switch i {
		case 1, 2:
			m.Index, m.Scale = stride, uint8(i)
		case 3:
			m.Index, m.Scale = triple, 1
		}
		return m
	}
	sets := 1
	if tokens == 1 {
		sets = 2
	}
	acc := make([]VecVirtual, sets*rows*tokens)
	for i := range acc {
		acc[i] = zero()
	}
	step := func(set int) {
		weights := make([]VecVirtual, rows)
		for r := range rows {
			m := row(src, wRow, wTriple, r)
			m.Disp = set * 8 * w.size
			weights[r] = w.loadMem(m)
		}
		for t := range tokens {
			m := row(x, xRow, xTriple, t)
			if t >= 4 {
				m = row(xLower, xRow, xTriple, t-4)
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

// nf4 writes the codebook's kernels.
func nf4() {
	table := GLOBL("nf4_values", RODATA|NOPTR)
	for i, v := range []float32{
		-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
		-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
		0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
		0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
	} {
		DATA(4*i, U32(math.Float32bits(v)))
	}
	for _, round := range []weightType{f32, f16, bf16} {
		// Dequantises n blocks of size weights, size a multiple of 16: dst = the scaled and rounded codebook's entries.
		function("nf4To"+round.name, "func(n, size int, dst *float32, codes *byte, absmax *float32)")
		n, size, dst, codes, absmax := pointer("n"), pointer("size"), pointer("dst"), pointer("codes"), pointer("absmax")
		SHRQ(U8(4), size)
		steps := GP64()
		loop("blocks", n, func() {
			scale := broadcast(Mem{Base: absmax})
			low, high := YMM(), YMM()
			VMULPS(table, scale, low)
			VMULPS(table.Offset(32), scale, high)
			for _, half := range []VecVirtual{low, high} {
				roundTo(round, half)
			}
			MOVQ(size, steps)
			loop("steps", steps, func() {
				// A byte's high nibble is the even weight. VPERMPS reads three bits of it, the blend the fourth as a sign.
				v, even, odd := YMM(), YMM(), YMM()
				VPMOVZXBD(Mem{Base: codes}, v)
				index, sign, other := YMM(), YMM(), YMM()
				VPSRLD(U8(4), v, index)
				VPSLLD(U8(24), v, sign)
				VPERMPS(low, index, even)
				VPERMPS(high, index, other)
				VBLENDVPS(sign, other, even, even)
				sign, other = YMM(), YMM()
				VPSLLD(U8(28), v, sign)
				VPERMPS(low, v, odd)
				VPERMPS(high, v, other)
				VBLENDVPS(sign, other, odd, odd)
				first, second := YMM(), YMM()
				VUNPCKLPS(odd, even, first)
				VUNPCKHPS(odd, even, second)
				VPERM2F128(U8(0x20), second, first, even)
				VPERM2F128(U8(0x31), second, first, odd)
				VMOVUPS(even, at(dst, 0))
				VMOVUPS(odd, at(dst, 8))
				ADDQ(U8(8), codes)
				ADDQ(U8(64), dst)
			})
			ADDQ(U8(4), absmax)
		})
		done()
	}

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

	// Packs n weights, a multiple of 32, times scale: a code is how many thresholds it exceeds.
	function("nf4Codes", "func(n int, codes *byte, x, thresholds *float32, scale float32)")
	n, codes, x, thresholds := pointer("n"), pointer("codes"), pointer("x"), pointer("thresholds")
	factor := parameter("scale")
	order := GLOBL("pack_order", RODATA|NOPTR)
	for i, v := range []uint32{0, 4, 1, 5, 2, 6, 3, 7} {
		DATA(4*i, U32(v))
	}
	sixteen := ConstData("nibbles", U16(0x0110)) // high nibble first: 16·even + odd
	nibbles, permutation := YMM(), YMM()
	VPBROADCASTW(sixteen, nibbles)
	VMOVDQU(order, permutation)
	SHRQ(U8(5), n)
	loop("loop", n, func() {
		var v, count [4]VecVirtual
		for i := range v {
			v[i], count[i] = YMM(), YMM()
			VMULPS(at(x, 8*i), factor, v[i])
			VPXOR(count[i], count[i], count[i])
		}
		for i := range 15 {
			threshold := broadcast(at(thresholds, i))
			for j := range v {
				above := YMM()
				VCMPPS(U8(0x1e), threshold, v[j], above) // v > threshold, false for NaN
				VPSUBD(above, count[j], count[j])
			}
		}
		words, more := YMM(), YMM()
		VPACKSSDW(count[1], count[0], words)
		VPACKSSDW(count[3], count[2], more)
		VPACKUSWB(more, words, words)
		VPERMD(words, permutation, words)
		VPMADDUBSW(nibbles, words, words)
		packed := XMM()
		VEXTRACTI128(U8(1), words, packed)
		VPACKUSWB(packed, words.AsX(), packed)
		VMOVDQU(packed, Mem{Base: codes})
		ADDQ(U8(16), codes)
		ADDQ(U32(128), x)
	})
	done()
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
	x, other := XMM(), XMM()
	VEXTRACTF128(U8(1), y, x)
	VMAXPS(y.AsX(), x, x)
	VPERMILPS(U8(0x4e), x, other)
	VMAXPS(other, x, x)
	VPERMILPS(U8(0xb1), x, other)
	VMAXPS(other, x, x)
	Store(x, ReturnIndex(0))
	done()
}
