package cuda

import (
	"fmt"

	"quartet/kernels"
)

// Rotary rotates the first h.Rotary elements of each head of x (T, heads·h.Dim) in place, or back.
func (b *Backend) Rotary(x, positions, table kernels.Tensor, h kernels.Heads, inverse bool) {
	const op = "Rotary"
	T, D, R := x.Rows, x.Cols, h.Rotary
	kernels.WantFloat(op, "x", x, T, D)
	kernels.Want(op, "positions", positions, kernels.I32, 1, T)
	kernels.Want(op, "table", table, kernels.F32, table.Rows, R)
	if h.Dim <= 0 || D%h.Dim != 0 || R%2 != 0 || R > h.Dim {
		panic(fmt.Sprintf("cuda: Rotary: %v for heads of %d, %d of them rotated", x, h.Dim, R))
	}
	heads := D / h.Dim
	b.rows("rotary"+suffix(x.DType), T, heads*ceil(R/2, 8),
		x.Addr, positions.Addr, table.Addr, number(heads), number(h.Dim), number(R/2), flag(inverse))
}
