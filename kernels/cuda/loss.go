package cuda

import "quartet/kernels"

// CrossEntropy sets losses (1,T) = -log softmax(logits)[label] and dlogits (T,V) = scale·(softmax - onehot).
func (b *Backend) CrossEntropy(losses, dlogits, logits, labels kernels.Tensor, scale float32) {
	const op = "CrossEntropy"
	T, V := logits.Rows, logits.Cols
	kernels.WantFloat(op, "logits", logits, T, V)
	kernels.Want(op, "losses", losses, kernels.F32, 1, T)
	kernels.Want(op, "labels", labels, kernels.I32, 1, T)
	if !dlogits.IsZero() {
		kernels.Want(op, "dlogits", dlogits, logits.DType, T, V)
	}
	b.rows("cross_entropy"+suffix(logits.DType), T, ceil(V, 8),
		losses.Addr, dlogits.Addr, logits.Addr, labels.Addr, number(V), real32(scale))
}
