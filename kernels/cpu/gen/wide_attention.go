package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// wideAttention writes attention's kernels: rows of d elements, of which the last d%16 come under a mask.
func wideAttention() {
	wideScores()
	wideWeigh()
	wideOuter()
}

// wideSplit is d as whole vectors and a mask for the elements after them.
func wideSplit(d Register) (whole Register, last Register) {
	whole = GP64()
	MOVQ(d, whole)
	SHRQ(U8(4), whole)
	ANDQ(U8(15), d)
	ones, k := GP64(), K()
	MOVQ(U32(0xffff), ones)
	BZHIQ(d, ones, ones)
	KMOVW(ones.As32(), k)
	return whole, k
}

func wideLoad(m Mem) VecVirtual {
	z := ZMM()
	VMOVUPS(m, z)
	return z
}

func wideMasked(m Mem, k Register) VecVirtual {
	z := ZMM()
	VMOVUPS_Z(m, k, z)
	return z
}

// wideScores is scores.
func wideScores() {
	function("wideScores", "func(n, d int, out, q, rows *float32, stride uintptr, scale float32)")
	n, d, out, rows, stride := pointer("n"), pointer("d"), pointer("out"), pointer("rows"), pointer("stride")
	scale := wideParameter("scale")
	whole, last := wideSplit(d)
	some := func(label string, keys int, count Register) {
		loop(label, count, func() {
			q := pointer("q")
			row := make([]Register, keys)
			acc := make([]VecVirtual, keys)
			for i := range keys {
				row[i], acc[i] = GP64(), wideZero()
				MOVQ(rows, row[i])
				ADDQ(stride, rows)
			}
			left := GP64()
			MOVQ(whole, left)
			loop(label+"_d", left, func() {
				v := wideLoad(Mem{Base: q})
				for i, r := range row {
					VFMADD231PS(at(r, 0), v, acc[i])
					ADDQ(U8(64), r)
				}
				ADDQ(U8(64), q)
			})
			TESTQ(d, d)
			JZ(LabelRef(label + "_whole"))
			v := wideMasked(Mem{Base: q}, last)
			for i, r := range row {
				VFMADD231PS(wideMasked(Mem{Base: r}, last), v, acc[i])
			}
			Label(label + "_whole")
			for i := range acc {
				x := wideLanes(acc[i])
				VMULSS(scale.AsX(), x, x)
				VMOVSS(x, at(out, i))
			}
			ADDQ(U8(4*keys), out)
		})
	}
	fours := GP64()
	MOVQ(n, fours)
	SHRQ(U8(2), fours)
	some("fours", 4, fours)
	ANDQ(U8(3), n)
	some("ones", 1, n)
	done()
}

// wideWeigh is weigh.
func wideWeigh() {
	function("wideWeigh", "func(n, d int, out, p, rows *float32, stride uintptr, scale float32)")
	n, d, out, rows, stride := pointer("n"), pointer("d"), pointer("out"), pointer("rows"), pointer("stride")
	scale := wideParameter("scale")
	whole, last := wideSplit(d)
	sum := func(label string, width int, load func(r Register, i int) Op) []VecVirtual {
		acc := make([]VecVirtual, width)
		for i := range acc {
			acc[i] = wideZero()
		}
		p, row, left := pointer("p"), GP64(), GP64()
		MOVQ(rows, row)
		MOVQ(n, left)
		loop(label, left, func() {
			weight := wideBroadcast(Mem{Base: p})
			for i := range acc {
				VFMADD231PS(load(row, i), weight, acc[i])
			}
			ADDQ(U8(4), p)
			ADDQ(stride, row)
		})
		for i := range acc {
			VMULPS(scale, acc[i], acc[i])
		}
		return acc
	}
	columns := func(label string, width int, count Register) {
		loop(label, count, func() {
			for i, z := range sum(label+"_n", width, func(r Register, i int) Op { return at(r, 16*i) }) {
				VMOVUPS(z, at(out, 16*i))
			}
			ADDQ(U32(64*width), rows)
			ADDQ(U32(64*width), out)
		})
	}
	fives := GP64() // phi-2's 80 elements are one of these
	XORQ(fives, fives)
	Label("count")
	CMPQ(whole, U8(5))
	JLT(LabelRef("counted"))
	SUBQ(U8(5), whole)
	INCQ(fives)
	JMP(LabelRef("count"))
	Label("counted")
	columns("fives", 5, fives)
	columns("ones", 1, whole)
	TESTQ(d, d)
	JZ(LabelRef("whole"))
	rest := sum("tail", 1, func(r Register, _ int) Op { return wideMasked(Mem{Base: r}, last) })
	VMOVUPS(rest[0], last, Mem{Base: out})
	Label("whole")
	done()
}

// wideOuter is outer.
func wideOuter() {
	function("wideOuter", "func(n, d int, rows *float32, stride uintptr, p, x *float32)")
	n, d, rows, stride, p := pointer("n"), pointer("d"), pointer("rows"), pointer("stride"), pointer("p")
	whole, last := wideSplit(d)
	loop("rows", n, func() {
		weight := wideBroadcast(Mem{Base: p})
		x, row, left := pointer("x"), GP64(), GP64()
		MOVQ(rows, row)
		MOVQ(whole, left)
		loop("d", left, func() {
			z := wideLoad(Mem{Base: row})
			VFMADD231PS(at(x, 0), weight, z)
			VMOVUPS(z, at(row, 0))
			ADDQ(U8(64), x)
			ADDQ(U8(64), row)
		})
		TESTQ(d, d)
		JZ(LabelRef("whole"))
		z := wideMasked(Mem{Base: row}, last)
		VFMADD231PS(wideMasked(Mem{Base: x}, last), weight, z)
		VMOVUPS(z, last, Mem{Base: row})
		Label("whole")
		ADDQ(U8(4), p)
		ADDQ(stride, rows)
	})
	done()
}
