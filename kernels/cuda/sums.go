package cuda

import "quartet/kernels"

// SumSquares adds to out (1,1) Σ x². Its order depends on x's size alone.
func (b *Backend) SumSquares(out, x kernels.Tensor) {
	kernels.Want("SumSquares", "out", out, kernels.F32, 1, 1)
	kernels.WantFloat("SumSquares", "x", x, x.Rows, x.Cols)
	n := x.Len()
	if n == 0 {
		return
	}
	const few, block, parts = 1 << 15, 256, 1024
	if n <= few { // as an adapter's matrices are
		b.run("sum_few"+suffix(x.DType), [3]int{1, 1, 1}, 1024, 0, out.Addr, x.Addr, number(n))
		return
	}
	grid := min(ceil(n, 8*block), parts)
	part := b.room("sums", kernels.F32, 1, grid)
	b.run("sum_squares"+suffix(x.DType), [3]int{grid, 1, 1}, block, 0, part.Addr, x.Addr, number(n))
	b.run("sum_parts", [3]int{1, 1, 1}, 256, 0, out.Addr, part.Addr, number(grid))
}
