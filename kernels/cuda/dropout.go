package cuda

import (
	"fmt"

	"quartet/kernels"
)

// Dropout sets out = x·mask/(1-p).
func (b *Backend) Dropout(out, x, tokens kernels.Tensor, p float32, key kernels.DropoutKey) {
	const op = "Dropout"
	T, D := x.Rows, x.Cols
	kernels.WantFloat(op, "x", x, T, D)
	kernels.Want(op, "out", out, x.DType, T, D)
	kernels.Want(op, "tokens", tokens, kernels.I32, T, 2)
	if p < 0 || p >= 1 {
		panic(fmt.Sprintf("cuda: Dropout: probability %v", p))
	}
	threshold := uint32(float64(p) * (1 << 32))
	high := uint32(key.Seed>>32) ^ uint32(key.Layer)<<16 ^ uint32(key.Site)
	b.rows("dropout"+suffix(x.DType), T, ceil(D, 8), out.Addr, x.Addr, tokens.Addr,
		number(D), word(threshold), real32(1/(1-p)), word(uint32(key.Seed)), word(high), word(key.Step))
}
