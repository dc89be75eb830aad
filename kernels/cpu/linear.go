package cpu

import (
	"fmt"

	"quartet/kernels"
)

// Linear sets out (T,N) = x (T,K) · weight (N,K)ᵀ + bias (1,N).
func (b *Backend) Linear(out, x, weight, bias kernels.Tensor) {
	T, K, N := x.Rows, x.Cols, weight.Rows
	want("Linear", "x", x, kernels.F32, T, K)
	want("Linear", "out", out, kernels.F32, T, N)
	wantWeight("Linear", weight, N, K)
	var bs []float32
	if !bias.IsZero() {
		wantFloat("Linear", "bias", bias, 1, N)
		bs = b.weightVector(0, bias)
	}
	o, xs := out.F32s(), x.F32s()
	b.pool.each(N, grain((T+1)*K), func(w *worker, lo, hi int) {
		buffer := w.floats(0, K)
		for n := lo; n < hi; n++ {
			row := b.row(buffer, weight, n)
			var shift float32
			if bs != nil {
				shift = bs[n]
			}
			for t := range T {
				o[t*N+n] = b.loops.dot(row, xs[t*K:]) + shift
			}
		}
	})
}

// LinearBackward adds dx (T,K) += dout (T,N) · weight (N,K).
func (b *Backend) LinearBackward(dx, dout, weight kernels.Tensor) {
	T, K, N := dx.Rows, dx.Cols, weight.Rows
	want("LinearBackward", "dx", dx, kernels.F32, T, K)
	want("LinearBackward", "dout", dout, kernels.F32, T, N)
	wantWeight("LinearBackward", weight, N, K)
	dxs, ds := dx.F32s(), dout.F32s()
	b.pool.each(K, max(64, grain(T*N)), func(w *worker, lo, hi int) {
		row := w.floats(0, hi-lo)
		for n := range N {
			b.load(row, weight, n*K+lo)
			for t := range T {
				b.loops.axpy(dxs[t*K+lo:t*K+hi], ds[t*N+n], row)
			}
		}
	})
}

// MatMul sets out (M,N) = alpha·op(x)·op(y) + beta·out.
func (b *Backend) MatMul(out, x, y kernels.Tensor, transX, transY bool, alpha, beta float32) {
	M, N := out.Rows, out.Cols
	K, xRow, xCol := x.Cols, x.Cols, 1
	if transX {
		K, xRow, xCol = x.Rows, 1, x.Cols
	}
	yK, yRow, yCol := y.Rows, y.Cols, 1
	if transY {
		yK, yRow, yCol = y.Cols, 1, y.Cols
	}
	want("MatMul", "out", out, kernels.F32, M, N)
	if x.DType != kernels.F32 || y.DType != kernels.F32 || x.Len() != M*K || y.Len() != yK*N || K != yK {
		panic(fmt.Sprintf("cpu: MatMul: %v = %v (transposed: %t) · %v (transposed: %t)", out, x, transX, y, transY))
	}
	o, xs, ys := out.F32s(), x.F32s(), y.F32s()
	b.pool.each(M, grain(N*K), func(w *worker, lo, hi int) {
		sum := w.floats(0, N)
		for i := lo; i < hi; i++ {
			clear(sum)
			for k := range K {
				a := xs[i*xRow+k*xCol]
				if yCol == 1 {
					b.loops.axpy(sum, a, ys[k*yRow:])
					continue
				}
				for j := range sum {
					sum[j] += a * ys[k+j*yCol]
				}
			}
			to := o[i*N : (i+1)*N]
			for j, s := range sum {
				if beta == 0 {
					to[j] = alpha * s
				} else {
					to[j] = alpha*s + beta*to[j]
				}
			}
		}
	})
}
