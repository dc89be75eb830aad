package cpu

import (
	"math"

	"quartet/kernels"
)

// LayerNorm sets out (T,D) = (x-mean)/sqrt(var+eps)·weight + bias, and stats (T,2) = mean, 1/sqrt(var+eps).
func (b *Backend) LayerNorm(out, stats, x, weight, bias kernels.Tensor, eps float32) {
	T, D := x.Rows, x.Cols
	kernels.Want("LayerNorm", "x", x, kernels.F32, T, D)
	kernels.Want("LayerNorm", "out", out, kernels.F32, T, D)
	kernels.WantFloat("LayerNorm", "weight", weight, 1, D)
	kernels.WantFloat("LayerNorm", "bias", bias, 1, D)
	var st []float32
	if !stats.IsZero() {
		kernels.Want("LayerNorm", "stats", stats, kernels.F32, T, 2)
		st = stats.F32s()
	}
	o, xs := out.F32s(), x.F32s()
	ws, bs := b.weightVector(0, weight), b.weightVector(1, bias)
	b.pool.each(T, grain(2*D), func(_ *worker, lo, hi int) {
		for t := lo; t < hi; t++ {
			row, to := xs[t*D:(t+1)*D], o[t*D:(t+1)*D]
			mean := b.loops.sum(row) / float32(D)
			variance := b.loops.sumSquares(row, mean) / float32(D)
			scale := float32(1 / math.Sqrt(float64(variance)+float64(eps)))
			b.loops.normalise(to, row, ws, bs, mean, scale)
			if st != nil {
				st[2*t], st[2*t+1] = mean, scale
			}
		}
	})
}

// LayerNormBackward adds to dx (T,D) the gradient through x: with x̂ the normalised row and g = dout·weight it is
// (g - mean(g) - x̂·mean(g·x̂)) / sqrt(var+eps).
func (b *Backend) LayerNormBackward(dx, dout, x, weight, stats kernels.Tensor) {
	T, D := x.Rows, x.Cols
	kernels.Want("LayerNormBackward", "x", x, kernels.F32, T, D)
	kernels.Want("LayerNormBackward", "dx", dx, kernels.F32, T, D)
	kernels.Want("LayerNormBackward", "dout", dout, kernels.F32, T, D)
	kernels.Want("LayerNormBackward", "stats", stats, kernels.F32, T, 2)
	kernels.WantFloat("LayerNormBackward", "weight", weight, 1, D)
	dxs, ds, xs, st := dx.F32s(), dout.F32s(), x.F32s(), stats.F32s()
	ws := b.weightVector(0, weight)
	b.pool.each(T, grain(3*D), func(_ *worker, lo, hi int) {
		for t := lo; t < hi; t++ {
			row, d, to := xs[t*D:(t+1)*D], ds[t*D:(t+1)*D], dxs[t*D:(t+1)*D]
			mean, scale := st[2*t], st[2*t+1]
			sum, along := b.loops.normSums(d, row, ws, mean, scale)
			b.loops.normSlope(to, d, row, ws, mean, scale, sum/float32(D), along/float32(D))
		}
	})
}
