package cuda

import (
	"math"

	"quartet/kernels"
)

// adamFactors are an AdamStep's constants for every element: p -= step·m/(√v + eps), then p ·= decay.
func adamFactors(s kernels.AdamStep) []uint64 {
	c1 := 1 - math.Pow(float64(s.Beta1), float64(s.T))
	c2 := math.Sqrt(1 - math.Pow(float64(s.Beta2), float64(s.T)))
	return []uint64{
		real32(s.Beta1), real32(1 - s.Beta1), real32(s.Beta2), real32(1 - s.Beta2), real32(s.GradScale),
		real32(float32(float64(s.LR) * c2 / c1)), real32(float32(c2 * float64(s.Eps))), real32(1 - float32(s.LR*s.WeightDecay)),
	}
}

// AdamW updates param by its gradient, with the moments m and v.
func (b *Backend) AdamW(param, grad, m, v kernels.Tensor, s kernels.AdamStep) {
	for _, t := range [...]kernels.Tensor{param, grad, m, v} {
		kernels.Want("AdamW", "an operand", t, kernels.F32, param.Rows, param.Cols)
	}
	b.runs("adamw", param.Len(), 1, append([]uint64{param.Addr, grad.Addr, m.Addr, v.Addr}, adamFactors(s)...)...)
}

// AdamW8bit is AdamW with block-wise 8-bit moments. The step uses the moments before they are quantised again. An element
// whose gradient is not finite loses its moments and keeps its value.
func (b *Backend) AdamW8bit(param, grad, state1, absmax1, state2, absmax2 kernels.Tensor, s kernels.AdamStep) {
	const op = "AdamW8bit"
	n := param.Len()
	blocks := ceil(n, kernels.AdamBlock)
	kernels.Want(op, "param", param, kernels.F32, param.Rows, param.Cols)
	kernels.Want(op, "grad", grad, kernels.F32, param.Rows, param.Cols)
	kernels.Want(op, "state1", state1, kernels.U8, param.Rows, param.Cols)
	kernels.Want(op, "state2", state2, kernels.U8, param.Rows, param.Cols)
	kernels.Want(op, "absmax1", absmax1, kernels.F32, 1, blocks)
	kernels.Want(op, "absmax2", absmax2, kernels.F32, 1, blocks)
	if n > 0 {
		args := append([]uint64{param.Addr, grad.Addr, state1.Addr, absmax1.Addr, state2.Addr, absmax2.Addr, b.maps().Addr}, adamFactors(s)...)
		b.run("adamw_8bit", [3]int{blocks, 1, 1}, kernels.AdamBlock, 0, append(args, number(n))...)
	}
}
