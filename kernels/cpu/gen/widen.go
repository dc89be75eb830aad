package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// widenRows writes what lays weights out for a product's tiles: parts of rows as float32, dstRow bytes apart. What lies
// ahead bytes further is asked for, as it is widened next.
func widenRows() {
	// n elements, a multiple of 32, of each row.
	function("widenRowsF16", "func(rows, n int, dst *float32, dstRow uintptr, src *uint16, srcRow, ahead uintptr)")
	rows, dst, src, ahead := pointer("rows"), pointer("dst"), pointer("src"), pointer("ahead")
	loop("rows", rows, func() {
		n, to, from := pointer("n"), GP64(), GP64()
		MOVQ(dst, to)
		MOVQ(src, from)
		SHRQ(U8(5), n)
		loop("loop", n, func() {
			PREFETCHT1(Mem{Base: from, Index: ahead, Scale: 1})
			for i := range 4 {
				VMOVUPS(f16.load(from, 8*i), at(to, 8*i))
			}
			ADDQ(U8(64), from)
			ADDQ(U32(128), to)
		})
		ADDQ(Load(Param("dstRow"), GP64()), dst)
		ADDQ(Load(Param("srcRow"), GP64()), src)
	})
	done()

	table := codebook()
	for _, round := range []weightType{f32, f16, bf16} {
		// Blocks of 64 weights, rounded, of each row; absmaxRow bytes apart lie the blocks' scales.
		function("nf4Rows"+round.name, "func(rows, blocks int, dst *float32, dstRow uintptr, codes *byte, codeRow uintptr, absmax *float32, absmaxRow, ahead uintptr)")
		rows, dst, codes, absmax, ahead := pointer("rows"), pointer("dst"), pointer("codes"), pointer("absmax"), pointer("ahead")
		look := lookWide
		if round.name == "F16" {
			look = lookHalf
		}
		loop("rows", rows, func() {
			n, to, from, scales := pointer("blocks"), GP64(), GP64(), GP64()
			MOVQ(dst, to)
			MOVQ(codes, from)
			MOVQ(absmax, scales)
			loop("loop", n, func() {
				PREFETCHT1(Mem{Base: from, Index: ahead, Scale: 1})
				low, high := scaledTables(table, round, scales)
				for half := range 2 {
					look(low, high, from, func(i int, weights VecVirtual) { VMOVUPS(weights, at(to, 32*half+8*i)) })
					ADDQ(U8(16), from)
				}
				ADDQ(U8(4), scales)
				ADDQ(U32(256), to)
			})
			ADDQ(Load(Param("dstRow"), GP64()), dst)
			ADDQ(Load(Param("codeRow"), GP64()), codes)
			ADDQ(Load(Param("absmaxRow"), GP64()), absmax)
		})
		done()
	}
}

// scaledTables is the codebook times a block's scale and rounded, as the look-ups of its type want it.
func scaledTables(table Mem, round weightType, absmax Register) (low, high VecVirtual) {
	low, high = YMM(), YMM()
	scale := broadcast(Mem{Base: absmax})
	VMULPS(table, scale, low)
	VMULPS(table.Offset(32), scale, high)
	if round.name == "F16" {
		halfTables(low, high)
	} else {
		roundTo(round, low)
		roundTo(round, high)
	}
	return low, high
}
