package cuda

import (
	"fmt"

	"quartet/kernels"
)

// Rotary rotates the first h.Rotary elements of each head of x (T, heads·h.Dim) in place, or back.
func (b *Backend) Rotary(x, positions, table kernels.Tensor, h kernels.Heads, inverse bool) {
	b.rotary("Rotary", []kernels.Tensor{x}, positions, table, h, inverse)
}

// RotaryPair is Rotary of x and of y, whose numbers of heads may differ.
func (b *Backend) RotaryPair(x, y, positions, table kernels.Tensor, h kernels.Heads, inverse bool) {
	b.rotary("RotaryPair", []kernels.Tensor{x, y}, positions, table, h, inverse)
}

func (b *Backend) rotary(op string, xs []kernels.Tensor, positions, table kernels.Tensor, h kernels.Heads, inverse bool) {
	T, R, most := xs[0].Rows, h.Rotary, 0
	kernels.Want(op, "positions", positions, kernels.I32, 1, T)
	kernels.Want(op, "table", table, kernels.F32, table.Rows, R)
	var args []uint64
	for _, x := range []kernels.Tensor{xs[0], xs[len(xs)-1]} {
		kernels.WantFloat(op, "x", x, T, x.Cols)
		kernels.Want(op, "y", x, xs[0].DType, T, x.Cols)
		if h.Dim <= 0 || x.Cols%h.Dim != 0 || R%2 != 0 || R > h.Dim {
			panic(fmt.Sprintf("cuda: %s: %v for heads of %d, %d of them rotated", op, x, h.Dim, R))
		}
		args = append(args, x.Addr, number(x.Cols/h.Dim))
		most = max(most, x.Cols/h.Dim)
	}
	if units := most * ceil(R/2, 8); T > 0 && units > 0 {
		b.run("rotary"+suffix(xs[0].DType), [3]int{T, len(xs), 1}, rowThreads(units, 512), 0,
			append(args, positions.Addr, table.Addr, number(h.Dim), number(R/2), flag(inverse))...)
	}
}
