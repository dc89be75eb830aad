package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// attention writes the products of one query with its n keys or values, rows of d elements that lie stride bytes apart.
func attention() {
	scores()
	weigh()
	outer()
}

// split is d as whole vectors and a mask for the elements after them, whose number it leaves in d.
func split(d Register) (whole Register, last span) {
	whole = GP64()
	MOVQ(d, whole)
	SHRQ(U8(3), whole)
	ANDQ(U8(7), d)
	return whole, span{mask(d)}
}

// scores: out[j] = scale·(q · row j).
func scores() {
	function("scores", "func(n, d int, out, q, rows *float32, stride uintptr, scale float32)")
	n, d, out, rows, stride := pointer("n"), pointer("d"), pointer("out"), pointer("rows"), pointer("stride")
	scale := parameter("scale")
	whole, last := split(d)
	some := func(label string, keys int, count Register) {
		loop(label, count, func() {
			q := pointer("q")
			row := make([]Register, keys)
			acc := make([]VecVirtual, keys)
			for i := range keys {
				row[i], acc[i] = GP64(), zero()
				MOVQ(rows, row[i])
				ADDQ(stride, rows)
			}
			left := GP64()
			MOVQ(whole, left)
			loop(label+"_d", left, func() {
				v := f32.load(q, 0)
				for i, r := range row {
					VFMADD231PS(at(r, 0), v, acc[i])
					ADDQ(U8(32), r)
				}
				ADDQ(U8(32), q)
			})
			TESTQ(d, d)
			JZ(LabelRef(label + "_whole"))
			v := last.load(q)
			for i, r := range row {
				VFMADD231PS(last.load(r), v, acc[i])
			}
			Label(label + "_whole")
			if keys == 1 {
				x := lanes(acc[0])
				VMULSS(x, scale.AsX(), x)
				VMOVSS(x, at(out, 0))
			} else {
				VHADDPS(acc[1], acc[0], acc[0])
				VHADDPS(acc[3], acc[2], acc[2])
				VHADDPS(acc[2], acc[0], acc[0])
				x := XMM()
				VEXTRACTF128(U8(1), acc[0], x)
				VADDPS(acc[0].AsX(), x, x)
				VMULPS(scale.AsX(), x, x)
				VMOVUPS(x, at(out, 0))
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

// weigh: out = scale·Σ p[j]·row j.
func weigh() {
	function("weigh", "func(n, d int, out, p, rows *float32, stride uintptr, scale float32)")
	n, d, out, rows, stride := pointer("n"), pointer("d"), pointer("out"), pointer("rows"), pointer("stride")
	scale := parameter("scale")
	whole, last := split(d)
	sum := func(label string, width int, load func(r Register, i int) Op) []VecVirtual {
		acc := make([]VecVirtual, width)
		for i := range acc {
			acc[i] = zero()
		}
		p, row, left := pointer("p"), GP64(), GP64()
		MOVQ(rows, row)
		MOVQ(n, left)
		loop(label, left, func() {
			weight := broadcast(Mem{Base: p})
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
			for i, y := range sum(label+"_n", width, func(r Register, i int) Op { return at(r, 8*i) }) {
				VMOVUPS(y, at(out, 8*i))
			}
			ADDQ(U32(32*width), rows)
			ADDQ(U32(32*width), out)
		})
	}
	fours := GP64()
	MOVQ(whole, fours)
	SHRQ(U8(2), fours)
	columns("fours", 4, fours)
	ANDQ(U8(3), whole)
	columns("ones", 1, whole)
	TESTQ(d, d)
	JZ(LabelRef("whole"))
	rest := sum("tail", 1, func(r Register, _ int) Op { return last.load(r) })
	last.store(rest[0], out)
	Label("whole")
	done()
}

// outer: row j += p[j]·x.
func outer() {
	function("outer", "func(n, d int, rows *float32, stride uintptr, p, x *float32)")
	n, d, rows, stride, p := pointer("n"), pointer("d"), pointer("rows"), pointer("stride"), pointer("p")
	whole, last := split(d)
	loop("rows", n, func() {
		weight := broadcast(Mem{Base: p})
		x, row, left := pointer("x"), GP64(), GP64()
		MOVQ(rows, row)
		MOVQ(whole, left)
		loop("d", left, func() {
			y := f32.load(row, 0)
			VFMADD231PS(at(x, 0), weight, y)
			VMOVUPS(y, at(row, 0))
			ADDQ(U8(32), x)
			ADDQ(U8(32), row)
		})
		TESTQ(d, d)
		JZ(LabelRef("whole"))
		y := last.load(row)
		VFMADD231PS(last.load(x), weight, y)
		last.store(y, row)
		Label("whole")
		ADDQ(U8(4), p)
		ADDQ(stride, rows)
	})
	done()
}
