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

// wholeTables is about how many tables of scales a thread has at once: they stay in the nearest cache.
const wholeTables = 5

// whole is activations as whole numbers.
type whole struct {
	words  []int16   // (T,K)
	scales []float32 // (T,K/64)
}

// linearWhole is linearNF4 in whole numbers, for blocks of 64. An entry of the codebook and an activation are rounded to
// the nearest of 2·16383 steps of the largest, 1 and that of 64 neighbours; a block's products are added up
// exactly, then scaled in float32. The weights are not rounded to float16 first, by which a weight moves by up to 2⁻¹¹ of
// itself. It reports whether it could: activations must be finite.
func (b *Backend) linearWhole(out, x, weight kernels.Tensor, bias []float32) bool {
	T, K, N, q, o := x.Rows, x.Cols, weight.Rows, weight.Quant, out.F32s()
	if sum := b.loops.sum(x.F32s()); sum-sum != 0 {
		return false
	}
	if n := T * K; cap(b.whole.words) < n {
		n = max(n, 1<<14)
		b.whole = whole{make([]int16, n), make([]float32, n/wholeBlock)}
	}
	a := whole{b.whole.words[:T*K], b.whole.scales[:T*K/wholeBlock]}
	b.loops.wholeSplit(a.words, a.scales, x.F32s())
	blocks, nested := K/wholeBlock, q.NestedAbsmax.F32s()
	most := max(1, wholeTables*kernels.NestedBlock/blocks)
	b.pool.each(N, most*max(1, grain(T*K/4)/most), func(w *worker, lo, hi int) {
		for n := lo; n < hi; n += most {
			rows := min(most, hi-n)
			first, last := n*blocks/kernels.NestedBlock, ((n+rows)*blocks-1)/kernels.NestedBlock
			tables := w.scaleTables(last - first + 1)
			for i := range tables {
				b.loops.nestedTable(&tables[i], nested[first+i], q.NestedOffset)
			}
			b.loops.wholeDots(o[n:], N, rows, weight.Host[n*K/2:], q.Absmax.Host[n*blocks:], (first+1)*kernels.NestedBlock-n*blocks, tables, a, T)
		}
		if bias != nil {
			for t := range T {
				b.loops.add(o[t*N+lo:t*N+hi], o[t*N+lo:t*N+hi], bias[lo:hi])
			}
		}
	})
	return true
}

// scaleTables is the worker's room for n tables.
func (w *worker) scaleTables(n int) [][256]float32 {
	if cap(w.tables) < n {
		w.tables = make([][256]float32, n)
	}
	return w.tables[:n]
}
