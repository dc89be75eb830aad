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
	args := append([]uint64{out.Addr, x.Addr, number(D)}, mask(op, kernels.Drop{Tokens: tokens, P: p, Key: key}, T)...)
	b.rows("dropout"+suffix(x.DType), T, ceil(D, 8), args...)
}

// mask is the arguments that stand for MASK in a kernel's parameters.
func mask(op string, d kernels.Drop, T int) []uint64 {
	if d.P < 0 || d.P >= 1 {
		panic(fmt.Sprintf("cuda: %s: dropout with probability %v", op, d.P))
	}
	if d.P > 0 {
		kernels.Want(op, "tokens", d.Tokens, kernels.I32, T, 2)
	}
	threshold := uint32(float64(d.P) * (1 << 32))
	high := uint32(d.Key.Seed>>32) ^ uint32(d.Key.Layer)<<16 ^ uint32(d.Key.Site)
	return []uint64{d.Tokens.Addr, word(threshold), real32(1 / (1 - d.P)), word(uint32(d.Key.Seed)), word(high), word(d.Key.Step)}
}
