package cuda

import "quartet/kernels"

// LayerNorm sets out (T,D) = (x-mean)/sqrt(var+eps)·weight + bias, and stats (T,2) = mean, 1/sqrt(var+eps).
func (b *Backend) LayerNorm(out, stats, x, weight, bias kernels.Tensor, eps float32) {
	wantNorm("LayerNorm", out, stats, x, weight, bias)
	if x.Len() == 0 {
		return
	}
	weight, bias = b.sameType(weight, bias)
	b.norm("layer_norm", x, weight, out.Addr, stats.Addr, x.Addr, weight.Addr, bias.Addr, number(x.Cols), real32(eps))
}

// AddNorm sets out (T,D) = x + drop(p) + drop(q), and norm and stats to the LayerNorm of out.
func (b *Backend) AddNorm(out, norm, stats, x kernels.Tensor, p, q kernels.Branch, weight, bias kernels.Tensor, eps float32) {
	const op = "AddNorm"
	wantNorm(op, norm, stats, x, weight, bias)
	kernels.Want(op, "out", out, x.DType, x.Rows, x.Cols)
	kernels.Want(op, "the first branch", p.X, x.DType, x.Rows, x.Cols)
	kernels.Want(op, "the second branch", q.X, x.DType, x.Rows, x.Cols)
	if x.Len() == 0 {
		return
	}
	weight, bias = b.sameType(weight, bias)
	args := []uint64{out.Addr, norm.Addr, stats.Addr, x.Addr, p.X.Addr, q.X.Addr, weight.Addr, bias.Addr, number(x.Cols), real32(eps)}
	args = append(append(args, mask(op, p.Drop, x.Rows)...), mask(op, q.Drop, x.Rows)...)
	b.norm("add_norm", x, weight, args...)
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
	if x.Len() > 0 {
		b.norm("layer_norm_backward", x, weight, dx.Addr, dout.Addr, x.Addr, weight.Addr, stats.Addr, number(D))
	}
}

// norm queues a kernel with a block a row of x, where a thread has as many runs of eight elements as it keeps if that fits.
func (b *Backend) norm(kernel string, x, weight kernels.Tensor, args ...uint64) {
	const heldRuns = 5
	b.run(kernel+suffix(x.DType)+suffix(weight.DType), [3]int{x.Rows, 1, 1}, rowThreads(ceil(x.Cols, 8*heldRuns), 512), 0, args...)
}

func wantNorm(op string, out, stats, x, weight, bias kernels.Tensor) {
	T, D := x.Rows, x.Cols
	kernels.WantFloat(op, "x", x, T, D)
	kernels.Want(op, "the normalised", out, x.DType, T, D)
	kernels.WantFloat(op, "weight", weight, 1, D)
	kernels.WantFloat(op, "bias", bias, 1, D)
	if !stats.IsZero() {
		kernels.Want(op, "stats", stats, kernels.F32, T, 2)
	}
}

// sameType is a norm's weight and bias in one type: theirs, or F32 where they differ.
func (b *Backend) sameType(weight, bias kernels.Tensor) (kernels.Tensor, kernels.Tensor) {
	if weight.DType == bias.DType {
		return weight, bias
	}
	return b.converted("norm's weight", weight, kernels.F32), b.converted("norm's bias", bias, kernels.F32)
}
