package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// quantize writes the making of NF4 codes.
func quantize() {
	// Packs n weights, a multiple of 32, times scale.
	function("nf4Codes", "func(n int, codes *byte, x, thresholds *float32, scale float32)")
	n, codes, x, thresholds := pointer("n"), pointer("codes"), pointer("x"), pointer("thresholds")
	factor := parameter("scale")
	s := newSearch(thresholds)
	SHRQ(U8(5), n)
	loop("loop", n, func() {
		s.pack(codes, x, factor)
		ADDQ(U8(16), codes)
		ADDQ(U32(128), x)
	})
	done()

	// Packs n blocks of 64 weights, each divided by its largest magnitude, which goes to absmax; NaN is passed over.
	function("nf4Blocks", "func(n int, codes *byte, absmax, x, thresholds *float32)")
	n, codes, x, thresholds = pointer("n"), pointer("codes"), pointer("x"), pointer("thresholds")
	absmax := pointer("absmax")
	s = newSearch(thresholds)
	loop("loop", n, func() {
		top := zero()
		for i := range 8 {
			y := YMM()
			VMOVUPS(at(x, 8*i), y)
			VANDPS(broadcast(bits(0x7fffffff)), y, y)
			VMAXPS(top, y, top)
		}
		largest, scale := topLane(top), YMM()
		VMOVSS(largest, Mem{Base: absmax})
		VMOVSS(constant(1), scale.AsX())
		VDIVSS(largest, scale.AsX(), scale.AsX())
		VBROADCASTSS(scale.AsX(), scale)
		for range 2 {
			s.pack(codes, x, scale)
			ADDQ(U8(16), codes)
			ADDQ(U32(128), x)
		}
		ADDQ(U8(4), absmax)
	})
	done()
}

// search finds how many of fifteen ascending thresholds a number exceeds, in four steps. What the steps have found so
// far is kept negative, as comparisons give it, so tables are looked up backwards; VPERMPS reads three bits of it.
type search struct {
	middle, lower, upper Mem        // the eighth, the fourth and the twelfth
	quarters, eighths    VecVirtual // every fourth from the second, and every second from the first
}

func newSearch(thresholds Register) search {
	s := search{at(thresholds, 7), at(thresholds, 3), at(thresholds, 11), YMM(), YMM()}
	table := func(first, step int) VecVirtual {
		room := AllocLocal(32)
		value := GP32()
		for i := range 8 / (step / 2) {
			MOVL(at(thresholds, first+step*i), value)
			MOVL(value, room.Offset(4*(-i&7)))
		}
		y := YMM()
		VMOVUPS(room, y)
		return y
	}
	s.quarters, s.eighths = table(1, 4), table(0, 2)
	return s
}

// codes turns four vectors of numbers into four of codes; the comparisons are false for NaN.
func (s search) codes(v [4]VecVirtual) (found [4]VecVirtual) {
	const exceeds = 0x1e
	compare := func(threshold func(i int) VecVirtual) {
		for i := range v {
			above := YMM()
			VCMPPS(U8(exceeds), threshold(i), v[i], above)
			VPADDD(found[i], found[i], found[i])
			VPADDD(above, found[i], found[i])
		}
	}
	middle := broadcast(s.middle)
	for i := range v {
		found[i] = YMM()
		VCMPPS(U8(exceeds), middle, v[i], found[i])
	}
	lower, upper := broadcast(s.lower), broadcast(s.upper)
	compare(func(i int) VecVirtual {
		y := YMM()
		VBLENDVPS(found[i], upper, lower, y)
		return y
	})
	for _, table := range []VecVirtual{s.quarters, s.eighths} {
		compare(func(i int) VecVirtual {
			y := YMM()
			VPERMPS(table, found[i], y)
			return y
		})
	}
	for i := range found {
		VPABSD(found[i], found[i])
	}
	return found
}

// pack writes the codes of 32 numbers times a factor.
func (s search) pack(codes, x Register, factor VecVirtual) {
	var v [4]VecVirtual
	for i := range v {
		v[i] = YMM()
		VMULPS(at(x, 8*i), factor, v[i])
	}
	found := s.codes(v)
	words, more, order, packed := YMM(), YMM(), YMM(), XMM()
	VPACKSSDW(found[1], found[0], words)
	VPACKSSDW(found[3], found[2], more)
	VPACKUSWB(more, words, words)
	VMOVDQU(packOrder(), order)
	VPERMD(words, order, words)
	VPMADDUBSW(broadcast(bits(0x01100110)), words, words) // high nibble first: 16·even + odd
	VEXTRACTI128(U8(1), words, packed)
	VPACKUSWB(packed, words.AsX(), packed)
	VMOVDQU(packed, Mem{Base: codes})
}

var order Mem

// packOrder undoes the lanes' mixing in two packs.
func packOrder() Mem {
	if order.Symbol.Name == "" {
		order = GLOBL("pack_order", RODATA|NOPTR)
		for i, v := range []uint32{0, 4, 1, 5, 2, 6, 3, 7} {
			DATA(4*i, U32(v))
		}
	}
	return order
}
