package cpu

import (
	"fmt"

	"quartet/kernels"
)

// Linear sets out (T,N) = x (T,K) · weight (N,K)ᵀ + bias (1,N).
func (b *Backend) Linear(out, x, weight, bias kernels.Tensor) {
	T, K, N := x.Rows, x.Cols, weight.Rows
	kernels.Want("Linear", "x", x, kernels.F32, T, K)
	kernels.Want("Linear", "out", out, kernels.F32, T, N)
	kernels.WantWeight("Linear", weight, N, K)
	var bs []float32
	if !bias.IsZero() {
		kernels.WantFloat("Linear", "bias", bias, 1, N)
		bs = b.weightVector(0, bias)
	}
	if T <= fewTokens(K) {
		if !b.linearNF4(out, x, weight, bs) {
			b.linearFew(out, x, weight, bs)
		}
		return
	}
	if b.linearParts(out, x, weight, bs) || b.linearTiles(out, x, weight, bs) {
		return
	}
	b.multiply(product{
		c: out.F32s(), rows: T, cols: N,
		a: x.F32s(), inner: K, aRow: K, aCol: 1,
		right: weight, alongRows: false, alpha: 1,
		start: func(c []float32, col int) {
			if bs == nil {
				clear(c)
			} else {
				copy(c, bs[col:])
			}
		},
	})
}

// LinearBackward adds dx (T,K) += dout (T,N) · weight (N,K).
func (b *Backend) LinearBackward(dx, dout, weight kernels.Tensor) {
	T, K, N := dx.Rows, dx.Cols, weight.Rows
	kernels.Want("LinearBackward", "dx", dx, kernels.F32, T, K)
	kernels.Want("LinearBackward", "dout", dout, kernels.F32, T, N)
	kernels.WantWeight("LinearBackward", weight, N, K)
	if b.linearBackwardParts(dx, dout, weight) {
		return
	}
	p := product{
		c: dx.F32s(), rows: T, cols: K,
		a: dout.F32s(), inner: N, aRow: N, aCol: 1,
		right: weight, alongRows: true, alpha: 1,
	}
	if weight.DType != kernels.NF4 {
		b.multiply(p)
		return
	}
	// Panels lie across NF4's blocks, so rows are dequantised whole, as many at a time as a product takes.
	ds := dout.F32s()
	for n := 0; n < N && T > 0; n += innerBlock {
		p.inner = min(innerBlock, N-n)
		p.a, p.right = ds[n:], b.dequantizeRows(weight, n, p.inner)
		b.multiply(p)
	}
}

// dequantizeRows is some rows of an NF4 matrix as F32, valid until it is called again.
func (b *Backend) dequantizeRows(t kernels.Tensor, row, rows int) kernels.Tensor {
	if n := rows * t.Cols; cap(b.rows) < n {
		b.rows = make([]float32, n)
	}
	wide := b.rows[:rows*t.Cols]
	b.pool.each(rows, grain(t.Cols/4), func(w *worker, lo, hi int) {
		const ahead = 1 << 13
		if scales := b.rowScales(w, t, row+lo, hi-lo); scales != nil && b.loops.nf4Rows != nil {
			b.loops.nf4Rows(wide[lo*t.Cols:], t.Cols, hi-lo, t.Cols, t, (row+lo)*t.Cols, scales, ahead)
			return
		}
		b.loadNF4(wide[lo*t.Cols:hi*t.Cols], t, (row+lo)*t.Cols)
	})
	return kernels.HostTensor(kernels.F32, rows, t.Cols, kernels.AsBytes(wide))
}

// MatMul sets out (M,N) = alpha·op(x)·op(y) + beta·out.
func (b *Backend) MatMul(out, x, y kernels.Tensor, transX, transY bool, alpha, beta float32) {
	M, N := out.Rows, out.Cols
	K, aRow, aCol := x.Cols, x.Cols, 1
	if transX {
		K, aRow, aCol = x.Rows, 1, x.Cols
	}
	kernels.Want("MatMul", "out", out, kernels.F32, M, N)
	right := kernels.Tensor{Rows: K, Cols: N}
	if transY {
		right.Rows, right.Cols = N, K
	}
	if x.DType != kernels.F32 || y.DType != kernels.F32 || x.Len() != M*K || y.Rows != right.Rows || y.Cols != right.Cols {
		panic(fmt.Sprintf("cpu: MatMul: %v = %v (transposed: %t) · %v (transposed: %t)", out, x, transX, y, transY))
	}
	p := product{
		c: out.F32s(), rows: M, cols: N,
		a: x.F32s(), inner: K, aRow: aRow, aCol: aCol,
		right: y, alongRows: !transY, alpha: alpha,
	}
	switch beta {
	case 1:
	case 0:
		p.start = func(c []float32, _ int) { clear(c) }
	default:
		p.start = func(c []float32, _ int) { b.loops.multiply(c, c, beta) }
	}
	b.multiply(p)
}

// fewTokens is up to how many tokens Linear goes row by row of the weights, without packing them: with short rows,
// adding up the sums' lanes costs more than packing.
func fewTokens(inner int) int {
	if inner < 512 {
		return 3
	}
	return 8
}

// linearFew is decoding's product: each weight is read once, widened once for all tokens, and used where it lies.
func (b *Backend) linearFew(out, x, weight kernels.Tensor, bias []float32) {
	T, K, N := x.Rows, x.Cols, weight.Rows
	if T == 0 {
		return
	}
	parts := (T + 5) / 6
	most := (T + parts - 1) / parts
	group := b.loops.dotRows[most]
	o, xs := out.F32s(), x.F32s()
	direct := weight.DType == kernels.F32 || weight.DType == kernels.F16 && b.loops.directF16
	b.pool.each(N, 12*max(1, grain(T*K)/12), func(w *worker, lo, hi int) {
		var sums [24]float32
		var wide kernels.Tensor
		if !direct {
			wide = kernels.HostTensor(kernels.F32, group, K, kernels.AsBytes(w.floats(0, group*K)))
		}
		for n := lo; n < hi; n += group {
			rows := min(group, hi-n)
			source, at := weight, n*K
			if !direct {
				b.load(wide.F32s()[:rows*K], weight, at)
				source, at = wide, 0
			}
			for t := 0; t < T; t += most {
				tokens := min(most, T-t)
				if K == 0 {
					clear(sums[:])
				} else {
					b.loops.dots(sums[:], source, at, K, xs[t*K:], K, K, rows, tokens)
				}
				for r := range rows {
					var shift float32
					if bias != nil {
						shift = bias[n+r]
					}
					for i := range tokens {
						o[(t+i)*N+n+r] = sums[r*tokens+i] + shift
					}
				}
			}
		}
	})
}
