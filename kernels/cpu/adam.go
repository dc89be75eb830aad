package cpu

import (
	"math"

	"quartet/kernels"
)

// sumBlock is how many squares are summed at once: the blocks, and so the order of the sum, are fixed.
const sumBlock = 1 << 12

// SumSquares adds to out (1,1) Σ x², in float64.
func (b *Backend) SumSquares(out, x kernels.Tensor) {
	kernels.Want("SumSquares", "out", out, kernels.F32, 1, 1)
	xs := x.F32s()
	blocks := make([]float64, (len(xs)+sumBlock-1)/sumBlock)
	b.pool.each(len(blocks), 4, func(_ *worker, lo, hi int) {
		for i := lo; i < hi; i++ {
			blocks[i] = b.loops.squares(xs[i*sumBlock : min(len(xs), (i+1)*sumBlock)])
		}
	})
	sum := float64(out.F32s()[0])
	for _, s := range blocks {
		sum += s
	}
	out.F32s()[0] = float32(sum)
}

// adamFactors are an AdamStep's constants for every element: p -= step·m/(√v + eps), then p ·= decay.
type adamFactors struct {
	beta1, rest1, beta2, rest2, grad, step, eps, decay float32
}

func factors(s kernels.AdamStep) adamFactors {
	c1 := 1 - math.Pow(float64(s.Beta1), float64(s.T))
	c2 := math.Sqrt(1 - math.Pow(float64(s.Beta2), float64(s.T)))
	return adamFactors{
		beta1: s.Beta1, rest1: 1 - s.Beta1, beta2: s.Beta2, rest2: 1 - s.Beta2, grad: s.GradScale,
		step: float32(float64(s.LR) * c2 / c1), eps: float32(c2 * float64(s.Eps)), decay: 1 - float32(s.LR*s.WeightDecay),
	}
}

// update is one element's step: its new parameter and moments.
func (f *adamFactors) update(p, g, m, v float32) (float32, float32, float32) {
	g = float32(g * f.grad)
	m = float32(f.beta1*m) + float32(f.rest1*g)
	v = float32(f.beta2*v) + float32(f.rest2*float32(g*g))
	p -= float32(f.step * (m / (float32(math.Sqrt(float64(v))) + f.eps)))
	return float32(p * f.decay), m, v
}

// AdamW updates param by its gradient, with the moments m and v.
func (b *Backend) AdamW(param, grad, m, v kernels.Tensor, s kernels.AdamStep) {
	for _, t := range [...]kernels.Tensor{grad, m, v} {
		kernels.Want("AdamW", "an operand", t, kernels.F32, param.Rows, param.Cols)
	}
	ps, gs, ms, vs, f := param.F32s(), grad.F32s(), m.F32s(), v.F32s(), factors(s)
	b.pool.each(len(ps), flat/8, func(_ *worker, lo, hi int) {
		for i := lo; i < hi; i++ {
			ps[i], ms[i], vs[i] = f.update(ps[i], gs[i], ms[i], vs[i])
		}
	})
}

// AdamW8bit is AdamW with block-wise 8-bit moments. The step uses the moments before they are quantised again. An element
// whose gradient is not finite loses its moments and keeps its value.
func (b *Backend) AdamW8bit(param, grad, state1, absmax1, state2, absmax2 kernels.Tensor, s kernels.AdamStep) {
	const op = "AdamW8bit"
	n := param.Len()
	blocks := (n + kernels.AdamBlock - 1) / kernels.AdamBlock
	kernels.Want(op, "grad", grad, kernels.F32, param.Rows, param.Cols)
	for name, t := range map[string]kernels.Tensor{"state1": state1, "state2": state2} {
		kernels.Want(op, name, t, kernels.U8, param.Rows, param.Cols)
	}
	for name, t := range map[string]kernels.Tensor{"absmax1": absmax1, "absmax2": absmax2} {
		kernels.Want(op, name, t, kernels.F32, 1, blocks)
	}
	ps, gs, a1, a2, f := param.F32s(), grad.F32s(), absmax1.F32s(), absmax2.F32s(), factors(s)
	b.pool.each(blocks, 8, func(_ *worker, lo, hi int) {
		var m, v [kernels.AdamBlock]float32
		for block := lo; block < hi; block++ {
			from, to := block*kernels.AdamBlock, min(n, (block+1)*kernels.AdamBlock)
			codes1, codes2 := state1.Host[from:to], state2.Host[from:to]
			var top1, top2 float32
			for i := range to - from {
				if g := float64(gs[from+i]); math.IsNaN(g) || math.IsInf(g, 0) {
					m[i], v[i] = 0, 0
					continue
				}
				ps[from+i], m[i], v[i] = f.update(ps[from+i], gs[from+i],
					float32(kernels.SignedMap[codes1[i]]*a1[block]), float32(kernels.UnsignedMap[codes2[i]]*a2[block]))
				top1, top2 = max(top1, abs(m[i])), max(top2, v[i])
			}
			a1[block], a2[block] = top1, top2
			for i := range to - from {
				codes1[i], codes2[i] = signedState(m[i], top1), kernels.UnsignedCode(ratio(v[i], top2))
			}
		}
	})
}

// signedState is the code of a first moment. One whose value has the other sign (0 counts as positive) moves by one.
func signedState(m, absmax float32) byte {
	code := kernels.SignedCode(ratio(m, absmax))
	if (kernels.SignedMap[code] < 0) != (m < 0) {
		if m > 0 {
			return code + 1
		}
		return code - 1
	}
	return code
}

func ratio(x, absmax float32) float32 {
	if absmax == 0 {
		return 0
	}
	return x / absmax
}
