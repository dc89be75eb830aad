package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// gemm writes the tiles of a product: c (rows,16) += alpha·a (rows,k)·b (k,16), where b is a packed panel and the
// elements of a lie aRow bytes apart down and aCol bytes along. Rows are 1 … 6: twelve accumulators fill the latency of
// two FMA units, with two registers for b and two for a.
func gemm() {
	for rows := 1; rows <= 6; rows++ {
		function(fmt.Sprintf("gemm%d", rows), "func(k int, a *float32, aRow, aCol uintptr, b, c *float32, cRow uintptr, alpha float32)")
		k, a, aRow, aCol, b := pointer("k"), pointer("a"), pointer("aRow"), pointer("aCol"), pointer("b")
		lower := GP64()
		LEAQ(Mem{Base: aRow, Index: aRow, Scale: 2}, lower)
		ADDQ(a, lower)
		var acc [6][2]VecVirtual
		for r := range rows {
			acc[r] = [2]VecVirtual{zero(), zero()}
		}
		step := func(at int) {
			left, right := YMM(), YMM()
			VMOVUPS(Mem{Base: b, Disp: 64 * at}, left)
			VMOVUPS(Mem{Base: b, Disp: 64*at + 32}, right)
			for r := range rows {
				row := Mem{Base: a}
				if r >= 3 {
					row.Base = lower
				}
				if r%3 > 0 {
					row.Index, row.Scale = aRow, uint8(r%3)
				}
				x := broadcast(row)
				VFMADD231PS(left, x, acc[r][0])
				VFMADD231PS(right, x, acc[r][1])
			}
			ADDQ(aCol, a)
			if rows > 3 {
				ADDQ(aCol, lower)
			}
		}
		fours := GP64()
		MOVQ(k, fours)
		SHRQ(U8(2), fours)
		loop("fours", fours, func() {
			for i := range 4 {
				step(i)
			}
			ADDQ(U32(256), b)
		})
		ANDQ(U8(3), k)
		loop("ones", k, func() {
			step(0)
			ADDQ(U8(64), b)
		})
		c, cRow := pointer("c"), pointer("cRow")
		alpha := parameter("alpha")
		for r := range rows {
			for half := range 2 {
				old := YMM()
				VMOVUPS(at(c, 8*half), old)
				VFMADD231PS(alpha, acc[r][half], old)
				VMOVUPS(old, at(c, 8*half))
			}
			if r < rows-1 {
				ADDQ(cRow, c)
			}
		}
		done()
	}
}

// peak multiplies and adds in registers only, 12·n vectors: the processor's product rate.
func peak() {
	function("fmaLoop", "func(n int)")
	n := pointer("n")
	var acc [12]VecVirtual
	for i := range acc {
		acc[i] = zero()
	}
	x, y := zero(), zero()
	loop("loop", n, func() {
		for i := range acc {
			VFMADD231PS(x, y, acc[i])
		}
	})
	done()
}

// pause lets a thread that looks out for work rest for some hundred cycles.
func pause() {
	TEXT("pause", NOSPLIT, "func()")
	for range 4 {
		PAUSE()
	}
	RET()
}

// packRows writes the copies of weights into panels (k,width) of float32 whose rows lie along the source's: k rows of
// width elements.
func packRows(width int) {
	for _, w := range weightTypes {
		function(fmt.Sprintf("pack%dRows%s", width, w.name), "func(k int, dst *float32, src *"+w.element+", stride uintptr)")
		k, dst, src, stride := pointer("k"), pointer("dst"), pointer("src"), pointer("stride")
		loop("loop", k, func() {
			for part := range width / 8 {
				VMOVUPS(w.load(src, 8*part), at(dst, 8*part))
			}
			ADDQ(stride, src)
			ADDQ(U32(4*width), dst)
		})
		done()
	}
}

// packColumns writes those whose rows lie across the source's: k elements of each of 8 rows become 8 columns.
func packColumns(width int) {
	for _, w := range weightTypes {
		function(fmt.Sprintf("pack%dColumns%s", width, w.name), "func(k int, dst *float32, src *"+w.element+", stride uintptr)")
		k, dst, src, stride := pointer("k"), pointer("dst"), pointer("src"), pointer("stride")
		SHRQ(U8(3), k)
		middle, triple := GP64(), GP64()
		LEAQ(Mem{Base: stride, Index: stride, Scale: 2}, triple)
		LEAQ(Mem{Base: src, Index: stride, Scale: 4}, middle)
		loop("loop", k, func() {
			var row [8]VecVirtual
			for r := range row {
				base := Register(src)
				if r >= 4 {
					base = middle
				}
				row[r] = w.loadMem(strided(base, stride, triple, r%4))
			}
			for i, column := range transpose(row) {
				VMOVUPS(column, at(dst, width*i))
			}
			ADDQ(U32(w.size*8), src)
			ADDQ(U32(w.size*8), middle)
			ADDQ(U32(32*width), dst)
		})
		done()
	}
}

// transpose turns eight rows of eight into columns.
func transpose(row [8]VecVirtual) (column [8]VecVirtual) {
	var pair, quad [8]VecVirtual
	for i := range 4 {
		pair[2*i], pair[2*i+1] = YMM(), YMM()
		VUNPCKLPS(row[2*i+1], row[2*i], pair[2*i])
		VUNPCKHPS(row[2*i+1], row[2*i], pair[2*i+1])
	}
	for i := range 2 {
		for j := range 2 {
			low, high := pair[4*i+j], pair[4*i+2+j]
			quad[4*i+2*j], quad[4*i+2*j+1] = YMM(), YMM()
			VUNPCKLPD(high, low, quad[4*i+2*j])
			VUNPCKHPD(high, low, quad[4*i+2*j+1])
		}
	}
	for i := range 4 {
		column[i], column[i+4] = YMM(), YMM()
		VPERM2F128(U8(0x20), quad[i+4], quad[i], column[i])
		VPERM2F128(U8(0x31), quad[i+4], quad[i], column[i+4])
	}
	return column
}
