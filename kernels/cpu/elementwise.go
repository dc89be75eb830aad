package cpu

import "quartet/kernels"

// flat is the grain of elementwise operations: a multiple of every vector width.
const flat = 1 << 14

// Zero sets t = 0.
func (b *Backend) Zero(t kernels.Tensor) {
	b.pool.each(len(t.Host), 4*flat, func(_ *worker, lo, hi int) { clear(t.Host[lo:hi]) })
}

// Copy sets out = x.
func (b *Backend) Copy(out, x kernels.Tensor) {
	kernels.Want("Copy", "out", out, out.DType, x.Rows, x.Cols)
	if out.DType == x.DType {
		b.pool.each(len(x.Host), 4*flat, func(_ *worker, lo, hi int) { copy(out.Host[lo:hi], x.Host[lo:hi]) })
		return
	}
	kernels.WantFloat("Copy", "out", out, x.Rows, x.Cols)
	kernels.WantFloat("Copy", "x", x, x.Rows, x.Cols)
	b.pool.each(x.Len(), flat, func(w *worker, lo, hi int) {
		if out.DType == kernels.F32 {
			b.load(out.F32s()[lo:hi], x, lo)
			return
		}
		wide := w.floats(0, hi-lo)
		b.load(wide, x, lo)
		b.store(out, lo, wide)
	})
}

// Add sets out = x + y.
func (b *Backend) Add(out, x, y kernels.Tensor) {
	kernels.Want("Add", "x", x, kernels.F32, out.Rows, out.Cols)
	kernels.Want("Add", "y", y, kernels.F32, out.Rows, out.Cols)
	o, xs, ys := out.F32s(), x.F32s(), y.F32s()
	b.pool.each(len(o), flat, func(_ *worker, lo, hi int) {
		b.loops.add(o[lo:hi], xs[lo:hi], ys[lo:hi])
	})
}

// Scale sets x = s·x.
func (b *Backend) Scale(x kernels.Tensor, s float32) {
	xs := x.F32s()
	b.pool.each(len(xs), flat, func(_ *worker, lo, hi int) {
		b.loops.multiply(xs[lo:hi], xs[lo:hi], s)
	})
}

// Gelu sets out = gelu_new(x).
func (b *Backend) Gelu(out, x kernels.Tensor) {
	kernels.Want("Gelu", "out", out, kernels.F32, x.Rows, x.Cols)
	o, xs := out.F32s(), x.F32s()
	b.pool.each(len(o), flat/4, func(_ *worker, lo, hi int) { b.loops.gelu(o[lo:hi], xs[lo:hi]) })
}

// GeluBackward sets dx = dout·gelu_new'(x).
func (b *Backend) GeluBackward(dx, dout, x kernels.Tensor) {
	kernels.Want("GeluBackward", "dx", dx, kernels.F32, x.Rows, x.Cols)
	kernels.Want("GeluBackward", "dout", dout, kernels.F32, x.Rows, x.Cols)
	dxs, ds, xs := dx.F32s(), dout.F32s(), x.F32s()
	b.pool.each(len(dxs), flat/4, func(_ *worker, lo, hi int) { b.loops.geluSlope(dxs[lo:hi], ds[lo:hi], xs[lo:hi]) })
}
