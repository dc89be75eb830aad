package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// dropout writes out = x·scale where Philox4x32-10's word is at least the threshold, and 0 elsewhere: n elements, a
// multiple of 32, of one token, eight counters at a time. args are threshold, position, row, step and the key's halves.
func dropout() {
	function("dropout", "func(n int, out, x *float32, args *[6]uint32, scale float32)")
	n, out, x, args := pointer("n"), pointer("out"), pointer("x"), pointer("args")
	scale := parameter("scale")
	first := GLOBL("counters", RODATA|NOPTR)
	for i := range 8 {
		DATA(4*i, U32(uint32(i)))
	}
	counter := YMM()
	VMOVDQU(first, counter)
	key := [2]Register{GP32(), GP32()}
	SHRQ(U8(5), n)
	loop("loop", n, func() {
		c := [4]VecVirtual{YMM(), broadcast(at(args, 1)), broadcast(at(args, 2)), broadcast(at(args, 3))}
		VMOVDQU(counter, c[0])
		MOVL(at(args, 4), key[0])
		MOVL(at(args, 5), key[1])
		for round := range 10 {
			hi0, lo0 := multiply(c[0], 0xD2511F53)
			hi1, lo1 := multiply(c[2], 0xCD9E8D57)
			VPXOR(c[1], hi1, hi1)
			VPXOR(keyVector(key[0]), hi1, hi1)
			VPXOR(c[3], hi0, hi0)
			VPXOR(keyVector(key[1]), hi0, hi0)
			c = [4]VecVirtual{hi1, lo1, hi0, lo0}
			if round < 9 {
				ADDL(U32(0x9E3779B9), key[0])
				ADDL(U32(0xBB67AE85), key[1])
			}
		}
		// Four words of eight counters become 32 words in order.
		var pair, quad [4]VecVirtual
		for i := range 4 {
			pair[i], quad[i] = YMM(), YMM()
		}
		VPUNPCKLDQ(c[1], c[0], pair[0])
		VPUNPCKHDQ(c[1], c[0], pair[1])
		VPUNPCKLDQ(c[3], c[2], pair[2])
		VPUNPCKHDQ(c[3], c[2], pair[3])
		VPUNPCKLQDQ(pair[2], pair[0], quad[0])
		VPUNPCKHQDQ(pair[2], pair[0], quad[1])
		VPUNPCKLQDQ(pair[3], pair[1], quad[2])
		VPUNPCKHQDQ(pair[3], pair[1], quad[3])
		threshold := broadcast(at(args, 0))
		for i, order := range []struct{ low, high, half int }{{0, 1, 0x20}, {2, 3, 0x20}, {0, 1, 0x31}, {2, 3, 0x31}} {
			words, least, v := YMM(), YMM(), f32.load(x, 8*i)
			VPERM2I128(U8(order.half), quad[order.high], quad[order.low], words)
			VPMAXUD(threshold, words, least)
			VPCMPEQD(words, least, words)
			VMULPS(scale, v, v)
			VANDPS(words, v, v)
			VMOVUPS(v, at(out, 8*i))
		}
		VPADDD(broadcast(bits(8)), counter, counter)
		ADDQ(U32(128), x)
		ADDQ(U32(128), out)
	})
	done()
}

func keyVector(key Register) VecVirtual {
	y := YMM()
	VMOVD(key, y.AsX())
	VPBROADCASTD(y.AsX(), y)
	return y
}

// multiply is the upper and lower halves of eight products of 32 bits.
func multiply(x VecVirtual, by uint32) (hi, lo VecVirtual) {
	factor, odd := broadcast(bits(by)), YMM()
	even := YMM()
	hi, lo = YMM(), YMM()
	VPMULUDQ(factor, x, even)
	VPSRLQ(U8(32), x, odd)
	VPMULUDQ(factor, odd, odd)
	VPSRLQ(U8(32), even, hi)
	VPBLENDD(U8(0xaa), odd, hi, hi)
	VPSLLQ(U8(32), odd, lo)
	VPBLENDD(U8(0xaa), lo, even, lo)
	return hi, lo
}
