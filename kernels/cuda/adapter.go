package cuda

import "quartet/kernels"

var _ kernels.Fused = (*Backend)(nil) // kernels.Fuse finds it

// LowRank sets out (T,N) += l.Scale·(drop(x) (T,K)·l.Aᵀ)·l.Bᵀ. In 16 bits the masked x is made where it is used.
func (b *Backend) LowRank(out, x kernels.Tensor, l kernels.LowRank, drop kernels.Drop, w kernels.LowRankWork) {
	low := thinLow{out: w.Low, x: x, y: l.A, transY: true, alpha: 1}
	if !low.fits() || !spreads(out, w.Low, l.B) {
		kernels.Plain(b).LowRank(out, x, l, drop, w)
		return
	}
	wantLowRank("LowRank", out, x, l, w.Low)
	if out.Len() > 0 {
		b.thinLow(drop, low)
		b.thinSpread(out, w.Low, l.B, true, l.Scale, 1, kernels.Drop{})
	}
}

// LowRankBackward adds to dx (T,K), gradA (r,K) and gradB (N,r) from dout (T,N): in 16 bits by three launches.
func (b *Backend) LowRankBackward(dx, gradA, gradB, dout, x kernels.Tensor, l kernels.LowRank, drop kernels.Drop, w kernels.LowRankWork) {
	low := thinLow{out: w.Low, x: x, y: l.A, transY: true, alpha: 1}
	dlow := thinLow{out: w.DLow, x: dout, y: l.B, alpha: l.Scale}
	a := thinOver{out: gradA, low: w.DLow, x: x, alpha: 1, beta: 1}
	c := thinOver{out: gradB, low: w.Low, x: dout, columns: true, alpha: l.Scale, beta: 1}
	if !low.fits() || !dlow.fits() || !a.fits() || !c.fits() || !spreads(dx, w.DLow, l.A) {
		kernels.Plain(b).LowRankBackward(dx, gradA, gradB, dout, x, l, drop, w)
		return
	}
	const op = "LowRankBackward"
	wantLowRank(op, dout, x, l, w.Low)
	kernels.Want(op, "dx", dx, x.DType, x.Rows, x.Cols)
	kernels.Want(op, "DLow", w.DLow, x.DType, x.Rows, l.A.Rows)
	kernels.Want(op, "gradA", gradA, kernels.F32, l.A.Rows, l.A.Cols)
	kernels.Want(op, "gradB", gradB, kernels.F32, l.B.Rows, l.B.Cols)
	b.thinLow(drop, low, dlow)
	b.thinOver(drop, a, c)
	b.thinSpread(dx, w.DLow, l.A, false, 1, 1, drop)
}

func wantLowRank(op string, out, x kernels.Tensor, l kernels.LowRank, low kernels.Tensor) {
	kernels.Want(op, "A", l.A, kernels.F32, l.A.Rows, x.Cols)
	kernels.Want(op, "B", l.B, kernels.F32, out.Cols, l.A.Rows)
	kernels.Want(op, "the output", out, x.DType, x.Rows, out.Cols)
	kernels.Want(op, "Low", low, x.DType, x.Rows, l.A.Rows)
}
