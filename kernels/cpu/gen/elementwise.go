package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// mapped writes a kernel out[i] = f(operands[i]): each operand is a pointer that moves along.
func mapped(name, extra string, operands []string, constants func() func(v []VecVirtual) VecVirtual) {
	signature := "func(n int, out"
	for _, o := range operands {
		signature += ", " + o
	}
	function(name, signature+" *float32"+extra+")")
	n, out := pointer("n"), pointer("out")
	sources := make([]Register, len(operands))
	for i, o := range operands {
		sources[i] = pointer(o)
	}
	f := constants()
	vectors("loop", n, append([]Register{out}, sources...), func(s span) {
		v := make([]VecVirtual, len(sources))
		for i, source := range sources {
			v[i] = s.load(source)
		}
		s.store(f(v), out)
	})
	done()
}

func elementwise() {
	mapped("add", "", []string{"x", "y"}, func() func(v []VecVirtual) VecVirtual {
		return func(v []VecVirtual) VecVirtual { VADDPS(v[1], v[0], v[0]); return v[0] }
	})
	mapped("multiply", ", s float32", []string{"x"}, func() func(v []VecVirtual) VecVirtual {
		s := parameter("s")
		return func(v []VecVirtual) VecVirtual { VMULPS(s, v[0], v[0]); return v[0] }
	})
	// A score's gradient: out = p·(dp - mean)·scale.
	mapped("scoreSlope", ", mean, scale float32", []string{"p", "dp"}, func() func(v []VecVirtual) VecVirtual {
		mean, scale := parameter("mean"), parameter("scale")
		return func(v []VecVirtual) VecVirtual {
			VSUBPS(mean, v[1], v[1])
			VMULPS(v[1], v[0], v[0])
			VMULPS(scale, v[0], v[0])
			return v[0]
		}
	})
	mapped("gelu", "", []string{"x"}, func() func(v []VecVirtual) VecVirtual {
		e, g := newExponential(), newGelu()
		return func(v []VecVirtual) VecVirtual {
			x := v[0]
			t, _ := g.decay(e, x)
			VADDPS(g.one, t, t)
			VDIVPS(t, x, x)
			return x
		}
	})
	mapped("geluSlope", "", []string{"dout", "x"}, func() func(v []VecVirtual) VecVirtual {
		e, g := newExponential(), newGelu()
		return func(v []VecVirtual) VecVirtual {
			// With e = exp(-2u) and s = 1/(1+e): gelu' = s + x·2u'·e·s², 2u' = 2√(2/π)(1 + 3·0.044715x²).
			dout, x := v[0], v[1]
			t, square := g.decay(e, x)
			s := YMM()
			VADDPS(g.one, t, s)
			VDIVPS(s, g.one, s)
			VMULPS(s, t, t)
			VMULPS(s, t, t)
			VMULPS(spread(3*geluCubic), square, square)
			VADDPS(g.one, square, square)
			VMULPS(spread(2*geluScale), square, square)
			VMULPS(x, square, square)
			VFMADD231PS(square, t, s)
			VMULPS(dout, s, s)
			return s
		}
	})
}

const (
	geluScale = 0.7978845608028654 // √(2/π)
	geluCubic = 0.044715
)

// geluKernel computes gelu_new(x) = x/(1+exp(-2u)), u = √(2/π)(x + 0.044715x³), which loses nothing to cancellation.
type geluKernel struct{ one VecVirtual }

func newGelu() geluKernel { return geluKernel{spread(1)} }

// decay is exp(-2u) and x².
func (g geluKernel) decay(e exponential, x VecVirtual) (t, square VecVirtual) {
	square, t = YMM(), YMM()
	VMULPS(x, x, square)
	VMULPS(spread(geluCubic), square, t)
	VADDPS(g.one, t, t)
	VMULPS(x, t, t)
	VMULPS(spread(-2*geluScale), t, t)
	return e.of(t), square
}

// exponential holds what exp needs at hand.
type exponential struct{ log2e VecVirtual }

func newExponential() exponential { return exponential{spread(1.44269504)} }

// of is exp(x): x = n·ln2 + r, a polynomial of r (Cephes' expf), and n added to the exponent. Below -87.3 it is 0, above
// 88.3 it stays there; NaN stays NaN. x is used up.
func (e exponential) of(x VecVirtual) VecVirtual {
	tiny := YMM()
	low := spread(-87.3)
	VCMPPS(U8(0x11), low, x, tiny) // x < low
	VMAXPS(x, low, x)
	VMINPS(x, spread(88.3), x)
	n := YMM()
	VMULPS(e.log2e, x, n)
	VROUNDPS(U8(0), n, n)
	VFNMADD231PS(spread(0.693359375), n, x)
	VFNMADD231PS(spread(-2.12194440e-4), n, x)
	p := spread(1.9875691500e-4)
	for _, c := range []float32{1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1} {
		VFMADD213PS(spread(c), x, p)
	}
	square := YMM()
	VMULPS(x, x, square)
	VFMADD213PS(x, square, p)
	VADDPS(spread(1), p, p)
	VCVTPS2DQ(n, n)
	VPSLLD(U8(23), n, n)
	VPADDD(n, p, p)
	VANDNPS(p, tiny, p)
	return p
}

// exponentials writes softmax's parts.
func exponentials() {
	function("expSum", "func(n int, out, x *float32, shift float32) float32")
	n, out, x := pointer("n"), pointer("out"), pointer("x")
	shift, total, e := parameter("shift"), zero(), newExponential()
	vectors("loop", n, []Register{x, out}, func(s span) {
		v := s.load(x)
		VSUBPS(shift, v, v)
		p := e.of(v)
		s.clear(p)
		VADDPS(p, total, total)
		s.store(p, out)
	})
	Store(lanes(total), ReturnIndex(0))
	done()

	function("maxOf", "func(n int, x *float32) float32")
	n, x = pointer("n"), pointer("x")
	top := broadcast(bits(0xff800000))
	vectors("loop", n, []Register{x}, func(s span) {
		v := s.load(x)
		if s.mask != nil {
			VBLENDVPS(*s.mask, v, top, v)
		}
		VMAXPS(v, top, top)
	})
	storeTop(top)
}
