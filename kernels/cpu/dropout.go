package cpu

import (
	"fmt"

	"quartet/kernels"
)

// Dropout sets out = x·mask/(1-p).
func (b *Backend) Dropout(out, x, tokens kernels.Tensor, p float32, key kernels.DropoutKey) {
	T, D := x.Rows, x.Cols
	kernels.Want("Dropout", "x", x, kernels.F32, T, D)
	kernels.Want("Dropout", "out", out, kernels.F32, T, D)
	kernels.Want("Dropout", "tokens", tokens, kernels.I32, T, 2)
	if p < 0 || p >= 1 {
		panic(fmt.Sprintf("cpu: Dropout: probability %v", p))
	}
	o, xs, at := out.F32s(), x.F32s(), tokens.I32s()
	b.pool.each(T, grain(2*D), func(_ *worker, lo, hi int) {
		d := dropoutRow{
			threshold: uint32(float64(p) * (1 << 32)), step: key.Step, scale: 1 / (1 - p),
			key: [2]uint32{uint32(key.Seed), uint32(key.Seed>>32) ^ uint32(key.Layer)<<16 ^ uint32(key.Site)},
		}
		for t := lo; t < hi; t++ {
			d.row, d.position = uint32(at[2*t]), uint32(at[2*t+1])
			b.loops.dropout(o[t*D:(t+1)*D], xs[t*D:(t+1)*D], &d)
		}
	})
}
