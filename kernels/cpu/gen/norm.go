package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// norms writes LayerNorm's passes over a row.
func norms() {
	function("sumOf", "func(n int, x *float32) float32")
	n, x := pointer("n"), pointer("x")
	total := zero()
	vectors("loop", n, []Register{x}, func(s span) { VADDPS(s.load(x), total, total) })
	Store(lanes(total), ReturnIndex(0))
	done()

	function("sumSquares", "func(n int, x *float32, mean float32) float32")
	n, x = pointer("n"), pointer("x")
	mean := parameter("mean")
	total = zero()
	vectors("loop", n, []Register{x}, func(s span) {
		v := s.load(x)
		VSUBPS(mean, v, v)
		s.clear(v)
		VFMADD231PS(v, v, total)
	})
	Store(lanes(total), ReturnIndex(0))
	done()

	// Σ x² in float64, of a multiple of sixteen elements.
	function("squares", "func(n int, x *float32) float64")
	n, x = pointer("n"), pointer("x")
	var acc [4]VecVirtual
	for i := range acc {
		acc[i] = zero()
	}
	SHRQ(U8(4), n)
	loop("loop", n, func() {
		for i := range acc {
			v := YMM()
			VCVTPS2PD(at(x, 4*i), v)
			VFMADD231PD(v, v, acc[i])
		}
		ADDQ(U8(64), x)
	})
	for i := range acc {
		if i > 0 {
			VADDPD(acc[i], acc[0], acc[0])
		}
	}
	half := XMM()
	VEXTRACTF128(U8(1), acc[0], half)
	VADDPD(acc[0].AsX(), half, half)
	VHADDPD(half, half, half)
	Store(half, ReturnIndex(0))
	done()

	mapped("normalise", ", mean, scale float32", []string{"x", "weight", "bias"}, func() func(v []VecVirtual) VecVirtual {
		mean, scale := parameter("mean"), parameter("scale")
		return func(v []VecVirtual) VecVirtual {
			VSUBPS(mean, v[0], v[0])
			VMULPS(scale, v[0], v[0])
			VFMADD213PS(v[2], v[1], v[0])
			return v[0]
		}
	})

	// Σ g and Σ g·x̂ with g = dout·weight and x̂ = (x-mean)·scale.
	function("normSums", "func(n int, dout, x, weight *float32, mean, scale float32) (sum, along float32)")
	n, dout, x, weight := pointer("n"), pointer("dout"), pointer("x"), pointer("weight")
	mean, scale := parameter("mean"), parameter("scale")
	sum, along := zero(), zero()
	vectors("loop", n, []Register{dout, x, weight}, func(s span) {
		g, v := s.load(dout), s.load(x)
		VMULPS(s.load(weight), g, g)
		VSUBPS(mean, v, v)
		VMULPS(scale, v, v)
		VADDPS(g, sum, sum)
		VFMADD231PS(g, v, along)
	})
	Store(lanes(sum), Return("sum"))
	Store(lanes(along), Return("along"))
	done()

	// out = old + scale·(g - sum - x̂·along), sum and along being means.
	mapped("normSlope", ", mean, scale, sum, along float32", []string{"old", "dout", "x", "weight"}, func() func(v []VecVirtual) VecVirtual {
		mean, scale, sum, along := parameter("mean"), parameter("scale"), parameter("sum"), parameter("along")
		return func(v []VecVirtual) VecVirtual {
			old, g, x := v[0], v[1], v[2]
			VMULPS(v[3], g, g)
			VSUBPS(sum, g, g)
			VSUBPS(mean, x, x)
			VMULPS(scale, x, x)
			VFNMADD231PS(along, x, g)
			VFMADD231PS(scale, g, old)
			return old
		}
	})
}
