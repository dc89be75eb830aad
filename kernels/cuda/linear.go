package cuda

import "quartet/kernels"

// Linear sets out (T,N) = x (T,K) · weight (N,K)ᵀ + bias (1,N); bias may be the zero Tensor.
func (b *Backend) Linear(out, x, weight, bias kernels.Tensor) {
	const op = "Linear"
	kernels.WantFloat(op, "x", x, out.Rows, weight.Cols)
	kernels.WantFloat(op, "out", out, x.Rows, weight.Rows)
	kernels.WantWeight(op, weight, out.Cols, x.Cols)
	if !bias.IsZero() {
		kernels.WantFloat(op, "bias", bias, 1, out.Cols)
	}
	if out.Len() == 0 || b.matvec(out, x, weight, bias) {
		return
	}
	b.product(out, x, b.dense(weight, x.DType), false, true, 1, 0, b.converted("bias", bias, out.DType))
}

// LinearBackward adds dx (T,K) += dout (T,N) · weight (N,K).
func (b *Backend) LinearBackward(dx, dout, weight kernels.Tensor) {
	b.linearBackward("LinearBackward", dx, dout, weight, 1)
}

// LinearGradient sets dx (T,K) = dout (T,N) · weight (N,K).
func (b *Backend) LinearGradient(dx, dout, weight kernels.Tensor) {
	b.linearBackward("LinearGradient", dx, dout, weight, 0)
}

func (b *Backend) linearBackward(op string, dx, dout, weight kernels.Tensor, beta float32) {
	kernels.WantFloat(op, "dx", dx, dout.Rows, weight.Cols)
	kernels.WantFloat(op, "dout", dout, dx.Rows, weight.Rows)
	kernels.WantWeight(op, weight, dout.Cols, dx.Cols)
	if dx.Len() > 0 {
		b.product(dx, dout, b.dense(weight, dout.DType), false, false, 1, beta, kernels.Tensor{})
	}
}

// product sets out = alpha·op(x)·op(y) + beta·out + bias by cuBLASLt where all are of one type and it takes them, else by a
// kernel that takes any.
func (b *Backend) product(out, x, y kernels.Tensor, transX, transY bool, alpha, beta float32, bias kernels.Tensor) {
	if b.failed != nil {
		return
	}
	k := x.Cols
	if transX {
		k = x.Rows
	}
	if k > 0 && out.DType == x.DType && x.DType == y.DType && (bias.IsZero() || bias.DType == out.DType) {
		done, err := b.dev.product(product{
			dtype: out.DType, out: out.Addr, x: x.Addr, y: y.Addr, bias: bias.Addr, m: out.Rows, n: out.Cols, k: k,
			transX: transX, transY: transY, ldOut: out.Cols, ldX: x.Cols, ldY: y.Cols, alpha: alpha, beta: beta,
		})
		b.fail(err)
		if done || err != nil {
			return
		}
	}
	b.gemm(out, x, y, transX, transY, alpha, beta, bias)
}

// dense is a weight in the type of the activations. An NF4 weight is dequantised into scratch that the next one overwrites, so
// that at most one matrix is ever there in full.
func (b *Backend) dense(weight kernels.Tensor, d kernels.DType) kernels.Tensor {
	if weight.DType != kernels.NF4 {
		return b.converted("weight", weight, d)
	}
	t := b.room("weight", d, weight.Rows, weight.Cols)
	if b.failed == nil {
		b.DequantizeNF4(t, weight)
	}
	return t
}

// converted is a tensor in another float type, in scratch of its purpose; t itself where it is of that type or none.
func (b *Backend) converted(purpose string, t kernels.Tensor, d kernels.DType) kernels.Tensor {
	if t.IsZero() || t.DType == d {
		return t
	}
	c := b.room(purpose, d, t.Rows, t.Cols)
	if b.failed == nil {
		b.Copy(c, t)
	}
	return c
}
