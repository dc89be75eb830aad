package cpu

import (
	"fmt"

	"quartet/kernels"
)

// Dropout sets out = x·mask/(1-p).
func (b *Backend) Dropout(out, x, tokens kernels.Tensor, p float32, key kernels.DropoutKey) {
	T, D := x.Rows, x.Cols
	want("Dropout", "x", x, kernels.F32, T, D)
	want("Dropout", "out", out, kernels.F32, T, D)
	want("Dropout", "tokens", tokens, kernels.I32, T, 2)
	if p < 0 || p >= 1 {
		panic(fmt.Sprintf("cpu: Dropout: probability %v", p))
	}
	o, xs, at := out.F32s(), x.F32s(), tokens.I32s()
	scale := 1 / (1 - p)
	b.pool.each(T, grain(8*D), func(_ *worker, lo, hi int) {
		keep := make([]bool, D)
		for t := lo; t < hi; t++ {
			kernels.DropoutKeep(keep, p, key, at[2*t], at[2*t+1])
			row, to := xs[t*D:(t+1)*D], o[t*D:(t+1)*D]
			for i, k := range keep {
				if k {
					to[i] = row[i] * scale
				} else {
					to[i] = 0
				}
			}
		}
	})
}
