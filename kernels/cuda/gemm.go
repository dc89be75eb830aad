package cuda

import "quartet/kernels"

// gemm sets out (M,N) = alpha·op(x)·op(y) + beta·out + bias (1,N) without cuBLASLt, of any float types; bias may be the zero
// Tensor.
func (b *Backend) gemm(out, x, y kernels.Tensor, transX, transY bool, alpha, beta float32, bias kernels.Tensor) {
	if out.Len() > 0 && !b.tiles(out, x, y, transX, transY, alpha, beta, bias) {
		b.gemmAny(out, x, y, transX, transY, alpha, beta, bias)
	}
}

// tiles does gemm on tensor cores where all is of one 16-bit type and 16-byte accesses divide the rows; otherwise it does nothing
// and is false.
func (b *Backend) tiles(out, x, y kernels.Tensor, transX, transY bool, alpha, beta float32, bias kernels.Tensor) bool {
	M, N, K := out.Rows, out.Cols, x.Cols
	if transX || x.DType == kernels.F32 || y.DType != x.DType || out.DType != x.DType || !bias.IsZero() && bias.DType != x.DType ||
		K == 0 || K%8 != 0 || !transY && N%8 != 0 || (x.Addr|y.Addr)%16 != 0 {
		return false
	}
	kernel := "tiles" + suffix(x.DType)
	if transY {
		kernel = "tiles_transposed" + suffix(x.DType)
	}
	const side = 128
	b.run(kernel, [3]int{ceil(N, side), ceil(M, side), 1}, 256, 0,
		out.Addr, x.Addr, y.Addr, bias.Addr, number(M), number(N), number(K), real32(alpha), real32(beta))
	return true
}

// gemmAny does gemm on ordinary units.
func (b *Backend) gemmAny(out, x, y kernels.Tensor, transX, transY bool, alpha, beta float32, bias kernels.Tensor) {
	k, xm, xk, yk, yn := x.Cols, x.Cols, 1, y.Cols, 1
	if transX {
		k, xm, xk = x.Rows, 1, x.Cols
	}
	if transY {
		yk, yn = 1, y.Cols
	}
	if k == 0 {
		x.Addr, y.Addr = 0, 0
	}
	const side = 64
	b.run("gemm", [3]int{ceil(out.Cols, side), ceil(out.Rows, side), 1}, 256, 0,
		out.Addr, x.Addr, y.Addr, bias.Addr, number(out.Rows), number(out.Cols), number(k), number(xm), number(xk), number(yk), number(yn),
		real32(alpha), real32(beta), number(int(out.DType)), number(int(x.DType)), number(int(y.DType)), number(int(bias.DType)))
}
