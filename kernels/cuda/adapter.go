//go:build cuda

package cuda

import "quartet/kernels"

// How adapter.cu divides work.
const (
	lowRankGroup   = 8  // ranks at once
	lowRankTokens  = 4  // tokens at once
	lowRankThreads = 64 // of a block over columns, eight each
	lowRankPart    = 16 // tokens at least in a part of gradA's sum
	lowRankParts   = 64
	lowRankMost    = 32 // ranks for which masking again for every group is cheaper than storing what is masked
)

// LowRank sets out (T,N) += l.Scale·(drop(x) (T,K)·l.Aᵀ)·l.Bᵀ.
func (b *Backend) LowRank(out, x kernels.Tensor, l kernels.LowRank, drop kernels.Drop, w kernels.LowRankWork) {
	if drop.P == 0 || l.A.Rows > lowRankMost {
		kernels.Plain(b).LowRank(out, x, l, drop, w)
		return
	}
	b.lowRank("LowRank", w.Low, x, l.A, drop)
	b.MatMul(out, w.Low, l.B, false, true, l.Scale, 1)
}

// LowRankBackward adds to dx (T,K), gradA (r,K) and gradB (N,r) from dout (T,N).
func (b *Backend) LowRankBackward(dx, gradA, gradB, dout, x kernels.Tensor, l kernels.LowRank, drop kernels.Drop, w kernels.LowRankWork) {
	if drop.P == 0 || l.A.Rows > lowRankMost {
		kernels.Plain(b).LowRankBackward(dx, gradA, gradB, dout, x, l, drop, w)
		return
	}
	const op = "LowRankBackward"
	T, K, r := x.Rows, x.Cols, l.A.Rows
	kernels.Want(op, "dx", dx, x.DType, T, K)
	kernels.Want(op, "DLow", w.DLow, x.DType, T, r)
	kernels.Want(op, "gradA", gradA, kernels.F32, r, K)
	b.lowRank(op, w.Low, x, l.A, drop)
	b.MatMul(gradB, dout, w.Low, true, false, l.Scale, 1)
	b.MatMul(w.DLow, dout, l.B, false, false, l.Scale, 0)
	if x.Len() == 0 {
		return
	}
	m, columns := mask(op, drop, T), ceil(K, 8*lowRankThreads)
	b.run("low_rank_input"+suffix(x.DType), [3]int{columns, min(ceil(T, lowRankTokens), 1<<15), 1}, lowRankThreads, 0,
		append([]uint64{dx.Addr, w.DLow.Addr, l.A.Addr, number(T), number(K), number(r)}, m...)...)
	parts := min(ceil(T, lowRankPart), lowRankParts)
	sums := b.room("low rank", kernels.F32, parts*r, K)
	b.run("low_rank_parts"+suffix(x.DType), [3]int{columns, parts, ceil(r, lowRankGroup)}, lowRankThreads, 0,
		append([]uint64{sums.Addr, w.DLow.Addr, x.Addr, number(T), number(K), number(r), number(ceil(T, parts))}, m...)...)
	b.runs("add_parts", r*K, 1, gradA.Addr, sums.Addr, number(parts))
}

// lowRank sets low (T,r) = drop(x) (T,K)·aᵀ.
func (b *Backend) lowRank(op string, low, x, a kernels.Tensor, drop kernels.Drop) {
	T, K, r := x.Rows, x.Cols, a.Rows
	kernels.WantFloat(op, "x", x, T, K)
	kernels.Want(op, "A", a, kernels.F32, r, K)
	kernels.Want(op, "Low", low, x.DType, T, r)
	if low.Len() > 0 {
		b.run("low_rank"+suffix(x.DType), [3]int{ceil(T, lowRankTokens), ceil(r, lowRankGroup), 1}, 128, 0,
			append([]uint64{low.Addr, x.Addr, a.Addr, number(T), number(K), number(r)}, mask(op, drop, T)...)...)
	}
}
