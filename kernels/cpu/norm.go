package cpu

import (
	"math"

	"quartet/kernels"
)

// LayerNorm sets out (T,D) = (x-mean)/sqrt(var+eps)·weight + bias, and stats (T,2) = mean, 1/sqrt(var+eps).
func (b *Backend) LayerNorm(out, stats, x, weight, bias kernels.Tensor, eps float32) {
	T, D := x.Rows, x.Cols
	want("LayerNorm", "x", x, kernels.F32, T, D)
	want("LayerNorm", "out", out, kernels.F32, T, D)
	wantFloat("LayerNorm", "weight", weight, 1, D)
	wantFloat("LayerNorm", "bias", bias, 1, D)
	var st []float32
	if !stats.IsZero() {
		want("LayerNorm", "stats", stats, kernels.F32, T, 2)
		st = stats.F32s()
	}
	o, xs := out.F32s(), x.F32s()
	ws, bs := b.weightVector(0, weight), b.weightVector(1, bias)
	b.pool.each(T, grain(8*D), func(_ *worker, lo, hi int) {
		for t := lo; t < hi; t++ {
			row, to := xs[t*D:(t+1)*D], o[t*D:(t+1)*D]
			var sum, squares float64
			for _, v := range row {
				sum += float64(v)
			}
			mean := sum / float64(D)
			for _, v := range row {
				d := float64(v) - mean
				squares += d * d
			}
			m, r := float32(mean), float32(1/math.Sqrt(squares/float64(D)+float64(eps)))
			for i, v := range row {
				to[i] = (v-m)*r*ws[i] + bs[i]
			}
			if st != nil {
				st[2*t], st[2*t+1] = m, r
			}
		}
	})
}

// LayerNormBackward adds to dx (T,D) the gradient through x: with x̂ the normalised row and g = dout·weight it is
// (g - mean(g) - x̂·mean(g·x̂)) / sqrt(var+eps).
func (b *Backend) LayerNormBackward(dx, dout, x, weight, stats kernels.Tensor) {
	T, D := x.Rows, x.Cols
	want("LayerNormBackward", "x", x, kernels.F32, T, D)
	want("LayerNormBackward", "dx", dx, kernels.F32, T, D)
	want("LayerNormBackward", "dout", dout, kernels.F32, T, D)
	want("LayerNormBackward", "stats", stats, kernels.F32, T, 2)
	wantFloat("LayerNormBackward", "weight", weight, 1, D)
	dxs, ds, xs, st := dx.F32s(), dout.F32s(), x.F32s(), stats.F32s()
	ws := b.weightVector(0, weight)
	b.pool.each(T, grain(12*D), func(_ *worker, lo, hi int) {
		for t := lo; t < hi; t++ {
			row, d, to := xs[t*D:(t+1)*D], ds[t*D:(t+1)*D], dxs[t*D:(t+1)*D]
			m, r := st[2*t], st[2*t+1]
			var sum, along float64
			for i, v := range row {
				g := d[i] * ws[i]
				sum += float64(g)
				along += float64(g * ((v - m) * r))
			}
			sum, along = sum/float64(D), along/float64(D)
			for i, v := range row {
				to[i] += r * (d[i]*ws[i] - float32(sum) - (v-m)*r*float32(along))
			}
		}
	})
}
