package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// The whole-number kernels multiply NF4 weights, in blocks of 64, by activations as int16. Both have up to wholeSteps steps:
// the eight products that an int32 adds up of a block stay below 2³¹.
const wholeSteps = 1<<14 - 1

// prefetchBytes is how far ahead of themselves kernels that read weights once ask for them.
const prefetchBytes = 4096

// whole writes decoding's product of whole numbers.
func whole() {
	wholeSplit()
	for tokens := 1; tokens <= 3; tokens++ {
		wholeDot(tokens)
	}
	nestedTable()
}

// nestedTable writes the values of all 256 codes of a nested block's scales: values·scale + offset, rounded twice.
func nestedTable() {
	function("nestedTable", "func(dst, values *[256]float32, scale, offset float32)")
	dst, values, count := pointer("dst"), pointer("values"), GP64()
	scale, offset := parameter("scale"), parameter("offset")
	MOVQ(U32(32), count)
	loop("loop", count, func() {
		y := YMM()
		VMULPS(at(values, 0), scale, y)
		VADDPS(offset, y, y)
		VMOVUPS(y, at(dst, 0))
		ADDQ(U8(32), values)
		ADDQ(U8(32), dst)
	})
	done()
}

// wholeSplit turns n blocks of activations into whole numbers of steps of their block's largest, and scales into
// the product of that step and of a weight's. In words, those of even index come first. Each sixteen of these are
// two runs of eight, two runs apart.
func wholeSplit() {
	function("wholeSplit", "func(n int, words *int16, scales, x *float32)")
	n, words, scales, x := pointer("n"), pointer("words"), pointer("scales"), pointer("x")
	magnitude, steps := broadcast(bits(0x7fffffff)), spread(wholeSteps)
	order := YMM()
	VBROADCASTI128(bytes16("words_apart", 0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15), order)
	loop("loop", n, func() {
		top := spread(1e-30) // which a block of zeros may be divided by
		for i := range 8 {
			v := YMM()
			VANDPS(at(x, 8*i), magnitude, v)
			VMAXPS(v, top, top)
		}
		other := YMM()
		VPERM2F128(U8(1), top, top, other)
		VMAXPS(other, top, top)
		for _, swap := range []uint8{0x4e, 0xb1} {
			VPERMILPS(U8(swap), top, other)
			VMAXPS(other, top, top)
		}
		scale := YMM()
		VDIVPS(top, steps, scale)
		VMULSS(constant(1.0/(wholeSteps*wholeSteps)), top.AsX(), top.AsX())
		VMOVSS(top.AsX(), Mem{Base: scales})
		var runs [4]VecVirtual // eight of even index, then the eight of odd index between them
		for i := range runs {
			low, high := YMM(), YMM()
			VMULPS(at(x, 16*i), scale, low)
			VMULPS(at(x, 16*i+8), scale, high)
			VCVTPS2DQ(low, low)
			VCVTPS2DQ(high, high)
			VPACKSSDW(high, low, low)
			VPERMQ(U8(0xd8), low, low)
			VPSHUFB(order, low, low)
			VPERMQ(U8(0xd8), low, low)
			runs[i] = low
		}
		for i := range 2 {
			even, odd := YMM(), YMM()
			VPERM2I128(U8(0x20), runs[i+2], runs[i], even)
			VPERM2I128(U8(0x31), runs[i+2], runs[i], odd)
			VMOVDQU(even, Mem{Base: words, Disp: 32 * i})
			VMOVDQU(odd, Mem{Base: words, Disp: 64 + 32*i})
		}
		ADDQ(U32(256), x)
		ADDQ(U32(128), words)
		ADDQ(U8(4), scales)
	})
	done()
}

// wholeWeights passes the 64 weights of 32 bytes of codes to body, sixteen at a time, in the order of wholeSplit's words.
type wholeWeights func(codes Register, body func(i int, weights VecVirtual))

// wholeDot sets out (tokens,n) to the products of n rows of weights, blocks long, with x as wholeSplit left it. absmax are
// codes of the tables: the first table's for left blocks, every other for 256. Tokens lie outRow, wordRow and scaleRow
// bytes apart.
func wholeDot(tokens int) {
	function(fmt.Sprintf("wholeDot%d", tokens), "func(n, blocks int, out *float32, outRow uintptr, codes, absmax *byte, left int, table *float32, words *int16, wordRow uintptr, scales *float32, scaleRow uintptr)")
	codes, absmax, left, table, out := pointer("codes"), pointer("absmax"), pointer("left"), pointer("table"), pointer("out")
	var wordRow, scaleRow Register
	if tokens > 1 {
		wordRow, scaleRow = pointer("wordRow"), pointer("scaleRow")
	}
	look := wholeLookUp()
	sum := make([]VecVirtual, tokens)
	loop("rows", pointer("n"), func() {
		for t := range sum {
			sum[t] = zero()
		}
		rest, x, scales := pointer("blocks"), pointer("words"), pointer("scales")
		Label("run") // of blocks that share a table
		run := GP64()
		MOVQ(rest, run)
		CMPQ(left, run)
		CMOVQLT(left, run)
		SUBQ(run, rest)
		SUBQ(run, left)
		loop("blocks", run, func() {
			PREFETCHT0(Mem{Base: codes, Disp: prefetchBytes})
			acc := make([]VecVirtual, tokens)
			look(codes, func(i int, weights VecVirtual) {
				for t := range acc {
					if m := tokenAt(Mem{Base: x, Disp: 32 * i}, t, wordRow); i == 0 {
						acc[t] = YMM()
						VPMADDWD(m, weights, acc[t])
					} else {
						product := YMM()
						VPMADDWD(m, weights, product)
						VPADDD(product, acc[t], acc[t])
					}
				}
			})
			code := GP64()
			MOVBQZX(Mem{Base: absmax}, code)
			scale := broadcast(Mem{Base: table, Index: code, Scale: 4})
			for t := range acc {
				step := broadcast(tokenAt(Mem{Base: scales}, t, scaleRow))
				VMULPS(scale, step, step)
				VCVTDQ2PS(acc[t], acc[t])
				VFMADD231PS(acc[t], step, sum[t])
			}
			ADDQ(U8(32), codes)
			INCQ(absmax)
			ADDQ(U32(128), x)
			ADDQ(U8(4), scales)
		})
		TESTQ(left, left)
		JNZ(LabelRef("same"))
		ADDQ(U32(1024), table)
		MOVQ(U32(256), left)
		Label("same")
		TESTQ(rest, rest)
		JNZ(LabelRef("run"))
		for t := range sum {
			m := Mem{Base: out}
			if t > 0 {
				m.Index, m.Scale = pointer("outRow"), uint8(t)
			}
			VMOVSS(lanes(sum[t]), m)
		}
		ADDQ(U8(4), out)
	})
	done()
}

// tokenAt is what token t has where the first has m.
func tokenAt(m Mem, t int, stride Register) Mem {
	if t > 0 {
		m.Index, m.Scale = stride, uint8(t)
	}
	return m
}

// wholeCodebook is NF4's values in steps.
func wholeCodebook() (steps []int16) {
	for _, v := range nf4Values {
		steps = append(steps, int16(math.RoundToEven(float64(v)*wholeSteps)))
	}
	return steps
}

// wholeLookUp looks the low and the high bytes of weights up apart.
func wholeLookUp() wholeWeights {
	low, high, nibble := YMM(), YMM(), broadcast(bits(0x0f0f0f0f))
	var bytes [2][]byte
	for _, s := range wholeCodebook() {
		bytes[0], bytes[1] = append(bytes[0], byte(uint16(s))), append(bytes[1], byte(uint16(s)>>8))
	}
	VBROADCASTI128(bytes16("nf4_low", bytes[0]...), low)
	VBROADCASTI128(bytes16("nf4_high", bytes[1]...), high)
	return func(codes Register, body func(i int, weights VecVirtual)) {
		var index [2]VecVirtual
		index[0], index[1] = YMM(), YMM()
		VMOVDQU(Mem{Base: codes}, index[1])
		VPSRLW(U8(4), index[1], index[0])
		for odd := range 2 {
			VPAND(nibble, index[odd], index[odd])
			lower := YMM()
			VPSHUFB(index[odd], low, lower)
			VPSHUFB(index[odd], high, index[odd])
			first, second := YMM(), YMM()
			VPUNPCKLBW(index[odd], lower, first)
			VPUNPCKHBW(index[odd], lower, second)
			body(2*odd, first)
			body(2*odd+1, second)
		}
	}
}
