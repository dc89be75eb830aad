package cpu

import "quartet/kernels"

// linearNF4 is linearFew for NF4 where the weights need not be written out: each is looked up and multiplied at once. It
// reports whether it could.
func (b *Backend) linearNF4(out, x, weight kernels.Tensor, bias []float32) bool {
	T, K, q := x.Rows, x.Cols, weight.Quant
	if T == 0 || K == 0 || weight.DType != kernels.NF4 || K%32 != 0 || q.BlockSize%32 != 0 {
		return false
	}
	if q.BlockSize == wholeBlock && K%wholeBlock == 0 && q.Round == kernels.F16 && q.NestedBlockSize == kernels.NestedBlock &&
		b.loops.wholeDots != nil && b.linearWhole(out, x, weight, bias) {
		return true
	}
	if T > 4 || b.loops.dotsNF4 == nil {
		return false
	}
	xs := b.evenFirst(x.F32s())
	N, o := weight.Rows, out.F32s()
	b.pool.each(N, grain(T*K/4), func(w *worker, lo, hi int) {
		var sums [4]float32
		buffer := w.floats(0, K/q.BlockSize+2)
		for n := lo; n < hi; n++ {
			first, last := n*K/q.BlockSize, ((n+1)*K-1)/q.BlockSize
			absmax := buffer[:last-first+1]
			b.loops.absmaxima(absmax, q, first)
			b.loops.dotsNF4(sums[:], q.BlockSize, weight.Host, n*K, absmax, q.Round, xs, K, K, T)
			var shift float32
			if bias != nil {
				shift = bias[n]
			}
			for t := range T {
				o[t*N+n] = sums[t] + shift
			}
		}
	})
	return true
}

// evenFirst is x with, of each 32 elements, those of even index first, valid until rows are laid out anew: NF4 packs two
// weights into a byte, and dotsNF4 takes bytes apart fastest so.
func (b *Backend) evenFirst(x []float32) []float32 {
	if cap(b.rows) < len(x) {
		b.rows = make([]float32, len(x))
	}
	apart := b.rows[:len(x)]
	for at := 0; at < len(x); at += 32 {
		from, to := x[at:at+32], apart[at:at+32]
		for i := range 16 {
			to[i], to[16+i] = from[2*i], from[2*i+1]
		}
	}
	return apart
}

// wholeBlock is how many weights share a scale where linearWhole takes them.
const wholeBlock = 64

// whole is activations as whole numbers, in the order of the kernels that take them.
type whole struct {
	words  []int16   // (T,K)
	scales []float32 // room for wholeCopies of each block's
	blocks int       // of a token: K/64
}

// wholeCopies is how often kernels write a block's scale at most.
const wholeCopies = 8

// linearWhole is linearNF4 in whole numbers, for blocks of 64. An entry of the codebook and an activation are rounded to
// the nearest of 2·16383 steps of the largest, 1 and that of 64 neighbours; a block's products are added up
// exactly, then scaled in float32. The weights are not rounded to float16 first, by which a weight moves by up to 2⁻¹¹ of
// itself. It reports whether it could: activations must be finite.
func (b *Backend) linearWhole(out, x, weight kernels.Tensor, bias []float32) bool {
	T, K, N, o := x.Rows, x.Cols, weight.Rows, out.F32s()
	if sum := b.loops.sum(x.F32s()); sum-sum != 0 {
		return false
	}
	if n := T * K; cap(b.whole.words) < n {
		n = max(n, 1<<14)
		b.whole = whole{words: make([]int16, n), scales: make([]float32, wholeCopies*n/wholeBlock)}
	}
	a := whole{b.whole.words[:T*K], b.whole.scales[:wholeCopies*T*K/wholeBlock], K / wholeBlock}
	b.loops.wholeSplit(a, x.F32s(), T)
	b.pool.each(N, b.loops.wholeRows*max(1, grain(T*K/4)/b.loops.wholeRows), func(w *worker, lo, hi int) {
		b.loops.wholeDots(w, o[lo:], N, weight, lo, hi-lo, a, T)
		if bias != nil {
			for t := range T {
				b.loops.add(o[t*N+lo:t*N+hi], o[t*N+lo:t*N+hi], bias[lo:hi])
			}
		}
	})
	return true
}
