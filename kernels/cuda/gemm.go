package cuda

import "quartet/kernels"

// gemm sets out (M,N) = alpha·op(x)·op(y) + beta·out + bias (1,N) by a kernel that takes any float types; bias may be the zero
// Tensor.
func (b *Backend) gemm(out, x, y kernels.Tensor, transX, transY bool, alpha, beta float32, bias kernels.Tensor) {
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
	const tile = 64
	if out.Len() > 0 {
		b.run("gemm", [3]int{ceil(out.Cols, tile), ceil(out.Rows, tile), 1}, 256, 0,
			out.Addr, x.Addr, y.Addr, bias.Addr, number(out.Rows), number(out.Cols), number(k), number(xm), number(xk), number(yk), number(yn),
			real32(alpha), real32(beta), number(int(out.DType)), number(int(x.DType)), number(int(y.DType)), number(int(bias.DType)))
	}
}
