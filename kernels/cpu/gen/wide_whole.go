package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// A word of codes holds weights 1, 0, 3 and 2 of four, from its low end. Words of two blocks fill a vector, so four looks
// at it, 4 bits further each, give 128 weights without taking bytes apart: wideOrder's first, then its second, and so on.
var wideOrder = [4]int{1, 0, 3, 2}

// wideWhole is whole with 512-bit vectors that hold two blocks each, for an even number of these.
func wideWhole() {
	wideWholeSplit()
	steps := wholeCodebook()
	twice := GLOBL("nf4_steps", RODATA|NOPTR) // since VPERMW reads five bits
	for i := range 2 * len(steps) {
		DATA(2*i, U16(uint16(steps[i%len(steps)])))
	}
	for tokens := 1; tokens <= 3; tokens++ {
		wideWholeDot(tokens, twice)
	}
}

// wideWholeSplit is wholeSplit in the order of pairs of blocks: each of four vectors has sixteen words of the first, then
// sixteen of the second block. A block's scale is written eight times. n is even.
func wideWholeSplit() {
	function("wideWholeSplit", "func(n int, words *int16, scales, x *float32)")
	n, words, scales, x := pointer("n"), pointer("words"), pointer("scales"), pointer("x")
	var order [2]VecVirtual
	for i := range order {
		table := GLOBL(fmt.Sprintf("words_of_four%d", i), RODATA|NOPTR)
		for j := range 32 {
			DATA(2*j, U16(uint16(4*(j%16)+wideOrder[2*i+j/16])))
		}
		order[i] = ZMM()
		VMOVDQU64(table, order[i])
	}
	magnitude, steps, least := wideBroadcast(bits(0x7fffffff)), wideBroadcast(constant(wholeSteps)), wideBroadcast(constant(1e-30))
	step := wideBroadcast(constant(1.0 / (wholeSteps * wholeSteps)))
	SHRQ(U8(1), n)
	loop("loop", n, func() {
		for half := range 2 {
			top := least // which a block of zeros may be divided by
			for i := range 4 {
				v := ZMM()
				VPANDD(Mem{Base: x, Disp: 256*half + 64*i}, magnitude, v)
				VMAXPS(top, v, v)
				top = v
			}
			for _, swap := range []uint8{0x4e, 0xb1} { // 128 bits at a time, then 32
				other := ZMM()
				VSHUFF32X4(U8(swap), top, top, other)
				VMAXPS(other, top, top)
			}
			for _, swap := range []uint8{0x4e, 0xb1} {
				other := ZMM()
				VPERMILPS(U8(swap), top, other)
				VMAXPS(other, top, top)
			}
			scale := ZMM()
			VDIVPS(top, steps, scale)
			VMULPS(step, top, top)
			VMOVUPS(top.AsY(), Mem{Base: scales, Disp: 32 * half})
			var low [2]VecVirtual
			for i := range low {
				var part [2]VecVirtual
				for j := range part {
					part[j] = ZMM()
					VMULPS(Mem{Base: x, Disp: 256*half + 128*i + 64*j}, scale, part[j])
					VCVTPS2DQ(part[j], part[j])
					VPMOVDW(part[j], part[j].AsY())
				}
				low[i] = ZMM()
				VINSERTI64X4(U8(1), part[1].AsY(), part[0], low[i])
			}
			for i := range order {
				index := ZMM()
				VMOVDQA64(order[i], index)
				VPERMI2W(low[1], low[0], index)
				VMOVDQU(index.AsY(), Mem{Base: words, Disp: 128*i + 32*half})
				VEXTRACTI64X4(U8(1), index, Mem{Base: words, Disp: 128*i + 64 + 32*half})
			}
		}
		ADDQ(U32(512), x)
		ADDQ(U32(256), words)
		ADDQ(U8(64), scales)
	})
	done()
}

// wideWholeDot sets out (tokens,…) to the products of n rows of weights, and of n that begin other blocks behind them,
// pairs of blocks long, with x as wideWholeSplit left it. first is the number of the first block; a block's scale is
// nested[its number/256]·values[its code] + offset. Rows of out lie outRow, tokens outToken bytes apart. Two rows far apart are
// two streams to the processor, which so fetches each further ahead of itself.
func wideWholeDot(tokens int, twice Mem) {
	function(fmt.Sprintf("wideWholeDot%d", tokens), "func(n, pairs int, out *float32, outRow, outToken uintptr, codes, absmax *byte, first, other int, values, nested *float32, words *int16, wordToken uintptr, steps *float32, stepToken uintptr, offset float32)")
	codes, absmax, block, other := pointer("codes"), pointer("absmax"), pointer("first"), pointer("other")
	values, nested, codeRow := pointer("values"), pointer("nested"), GP64()
	MOVQ(other, codeRow)
	SHLQ(U8(5), codeRow)
	var wordToken, stepToken Register
	if tokens > 1 {
		wordToken, stepToken = pointer("wordToken"), pointer("stepToken")
	}
	row := func(m Mem, r int, stride Register) Mem {
		if r > 0 {
			m.Index, m.Scale = stride, 1
		}
		return m
	}
	book, second, offset := ZMM(), K(), wideParameter("offset")
	VMOVDQU64(twice, book)
	temporary := GP64()
	MOVQ(U32(0xff00), temporary)
	KMOVW(temporary.As32(), second)
	sum := make([][2]VecVirtual, tokens)
	Label("rows")
	for t := range sum {
		sum[t] = [2]VecVirtual{wideZero(), wideZero()}
	}
	pairs, x, steps := pointer("pairs"), pointer("words"), pointer("steps")
	Label("pairs")
	for r := range 2 {
		PREFETCHT0(row(Mem{Base: codes, Disp: prefetchBytes / 2}, r, codeRow))
		acc := make([]VecVirtual, tokens)
		for t := range acc {
			acc[t] = wideZero()
		}
		all := ZMM()
		VMOVDQU64(row(Mem{Base: codes}, r, codeRow), all)
		for i := range 4 {
			index, weights := all, ZMM()
			if i > 0 {
				index = weights
				VPSRLW(U8(4*i), all, index)
			}
			VPERMW(book, index, weights)
			for t := range acc {
				addProducts(tokenAt(Mem{Base: x, Disp: 64 * i}, t, wordToken), weights, acc[t])
			}
		}
		LEAQ(row(Mem{Base: block}, r, other), temporary)
		SHRQ(U8(8), temporary)
		group := wideBroadcast(Mem{Base: nested, Index: temporary, Scale: 4})
		MOVBQZX(row(Mem{Base: absmax}, r, other), temporary)
		scale := wideBroadcast(Mem{Base: values, Index: temporary, Scale: 4})
		MOVBQZX(row(Mem{Base: absmax, Disp: 1}, r, other), temporary)
		VBROADCASTSS(Mem{Base: values, Index: temporary, Scale: 4}, second, scale)
		VFMADD213PS(offset, group, scale)
		for t := range acc {
			step := ZMM()
			VMULPS(tokenAt(Mem{Base: steps}, t, stepToken), scale, step)
			VCVTDQ2PS(acc[t], acc[t])
			VFMADD231PS(acc[t], step, sum[t][r])
		}
	}
	ADDQ(U8(64), codes)
	ADDQ(U8(2), absmax)
	ADDQ(U8(2), block)
	ADDQ(U32(256), x)
	ADDQ(U8(64), steps)
	DECQ(pairs)
	JNZ(LabelRef("pairs"))
	PREFETCHT0(Mem{Base: absmax, Disp: 512})
	PREFETCHT0(Mem{Base: absmax, Index: other, Scale: 1, Disp: 512})
	out, outRow, outToken := pointer("out"), pointer("outRow"), pointer("outToken")
	for t := range sum {
		for r := range 2 {
			VMOVSS(wideLanes(sum[t][r]), row(Mem{Base: out}, r, outRow))
		}
		ADDQ(outToken, out)
	}
	to, err := Param("out").Resolve()
	if err != nil {
		panic(err)
	}
	ADDQ(U8(4), to.Addr)
	count, err := Param("n").Resolve()
	if err != nil {
		panic(err)
	}
	DECQ(count.Addr)
	JNZ(LabelRef("rows"))
	done()
}

// addProducts adds the products of pairs of int16 to int32, by an instruction that the generator does not know.
func addProducts(x Mem, weights, to VecVirtual) {
	Instruction(&ir.Instruction{Opcode: "VPDPWSSD", Operands: []Op{x, weights, to}, Inputs: []Op{x, weights, to}, Outputs: []Op{to}})
}
