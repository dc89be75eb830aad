package cuda

import "quartet/kernels"

// LayerNorm sets out (T,D) = (x-mean)/sqrt(var+eps)·weight + bias, and stats (T,2) = mean, 1/sqrt(var+eps).
func (b *Backend) LayerNorm(out, stats, x, weight, bias kernels.Tensor, eps float32) {
	const op = "LayerNorm"
	T, D := x.Rows, x.Cols
	kernels.WantFloat(op, "x", x, T, D)
	kernels.Want(op, "out", out, x.DType, T, D)
	kernels.WantFloat(op, "weight", weight, 1, D)
	kernels.Want(op, "bias", bias, weight.DType, 1, D)
	if !stats.IsZero() {
		kernels.Want(op, "stats", stats, kernels.F32, T, 2)
	}
	b.rows("layer_norm"+suffix(x.DType)+suffix(weight.DType), T, ceil(D, 8),
		out.Addr, stats.Addr, x.Addr, weight.Addr, bias.Addr, number(D), real32(eps))
}

// LayerNormBackward adds to dx (T,D) the gradient through x.
func (b *Backend) LayerNormBackward(dx, dout, x, weight, stats kernels.Tensor) {
	const op = "LayerNormBackward"
	T, D := x.Rows, x.Cols
	kernels.WantFloat(op, "x", x, T, D)
	kernels.Want(op, "dx", dx, x.DType, T, D)
	kernels.Want(op, "dout", dout, x.DType, T, D)
	kernels.Want(op, "stats", stats, kernels.F32, T, 2)
	kernels.WantFloat(op, "weight", weight, 1, D)
	b.rows("layer_norm_backward"+suffix(x.DType)+suffix(weight.DType), T, ceil(D, 8),
		dx.Addr, dout.Addr, x.Addr, weight.Addr, stats.Addr, number(D))
}
