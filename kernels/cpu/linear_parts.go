package cpu

import "quartet/kernels"

// A float32 is the sum of three bfloat16, its upper, middle and lower eight bits; a weight of 16 bits is that of two. Units
// that multiply bfloat16 and add in float32 so do the products of float32: five of the six, as that of the lower parts is
// below the last bit.

// parts are the loops of such a unit. Its tiles are 32 by 32, and it takes 32 elements of the inner dimension at a time.
// ahead is how many elements further lies what they ask for.
type parts struct {
	// rows splits count elements of some rows of weights, from element at on, in two: a multiple of 32, or of NF4's blocks of
	// 64, whose scales are absmax. Rows lie partRow apart.
	rows func(dst []uint16, rows, count int, t kernels.Tensor, at int, absmax []float32, ahead int)

	// panel splits a panel (k,32), k a multiple of 32, in three.
	panel func(dst []uint16, panel []float32)

	// product adds to sums (blocks·32,panels·32) the rows times the panels, whose elements count begin panel words apart.
	product func(sums []float32, blocks, panels, count int, rows, tokens []uint16, panel int)

	// rowsThree splits count elements of some rows, stride apart, in three. Rows lie partRowThree apart.
	rowsThree func(dst []uint16, rows, count int, x []float32, stride int)

	// columns splits 32 columns of count rows of weights, from element at on, in two.
	columns func(dst []uint16, count int, t kernels.Tensor, at, ahead int)

	// productBack adds to sums (blocks·32,panels·32) the rows in three parts times the columns in two.
	productBack func(sums []float32, sumsRow, blocks, panels, count int, rows, columns []uint16)
}

const (
	partTile     = 32
	partRow      = 2*innerBlock + 32 // words: rows of a tile must not compete for the same places in the cache
	partRowThree = 3*innerBlock + 32
	partGroup    = 64                        // rows of weights that are split at once
	partColumns  = 128                       // and columns
	columnWords  = 2 * innerBlock * partTile // of a panel of columns
	partChunk    = 1024                      // rows of NF4 weights that are dequantised at once for their columns
)

// splits reports whether products of T tokens by (N,K) weights are worth being made of parts.
func (b *Backend) splits(T, N, K int) bool {
	padded := (T + partTile - 1) / partTile * partTile
	return b.loops.parts != nil && N*K >= tilesFrom && 3*T >= 2*padded
}

// linearParts is linearTiles for a unit that multiplies bfloat16.
func (b *Backend) linearParts(out, x, weight kernels.Tensor, bias []float32) bool {
	T, K, N := x.Rows, x.Cols, weight.Rows
	if K%64 != 0 || !b.splits(T, N, K) {
		return false
	}
	switch q := weight.Quant; weight.DType {
	case kernels.F16, kernels.BF16:
	case kernels.NF4:
		if q.BlockSize != wholeBlock || q.Round != kernels.F16 {
			return false
		}
	default:
		return false
	}
	for t := 0; t < T; t += tileTokens {
		rows := min(tileTokens, T-t)
		b.multiplyParts(out.Slice(t, t+rows), b.splitTokens(x.Slice(t, t+rows)), weight, bias)
	}
	return true
}

// splitTokens is x (T,K) as panels of 32 tokens in three parts, with zeros for those that are missing. It is valid until it
// is called again.
func (b *Backend) splitTokens(x kernels.Tensor) []uint16 {
	T, K := x.Rows, x.Cols
	panels, blocks := (T+partTile-1)/partTile, (K+innerBlock-1)/innerBlock
	if n := 3 * panels * partTile * K; cap(b.parts) < n {
		b.parts = make([]uint16, n)
	}
	split := b.parts[:3*panels*partTile*K]
	b.pool.each(panels*blocks, grain(partTile*innerBlock/4), func(w *worker, lo, hi int) {
		panel := w.floats(0, partTile*innerBlock)
		for item := lo; item < hi; item++ {
			t, k := item/blocks*partTile, item%blocks*innerBlock
			count := min(innerBlock, K-k)
			b.panelAcross(w, panel, x, t*K+k, K, count, min(partTile, T-t))
			b.loops.parts.panel(split[3*(t*K+k*partTile):], panel[:count*partTile])
		}
	})
	return split
}

// multiplyParts sets out (T,N) from the tokens' panels.
func (b *Backend) multiplyParts(out kernels.Tensor, split []uint16, weight kernels.Tensor, bias []float32) {
	T, N, K := out.Rows, out.Cols, weight.Cols
	panels := (T + partTile - 1) / partTile
	tokens := panels * partTile
	b.pool.each((N+partGroup-1)/partGroup, 1, func(w *worker, lo, hi int) {
		sums := w.floats(1, partGroup*tokens)
		words := w.floats(0, partGroup*partRow/2)
		rows := kernels.HostTensor(kernels.BF16, partGroup, partRow, kernels.AsBytes(words)).F16s()
		for group := lo; group < hi; group++ {
			n := group * partGroup
			count := min(partGroup, N-n)
			clear(sums)
			scales := b.rowScales(w, weight, n, count)
			for k := 0; k < K; k += innerBlock {
				inner := min(innerBlock, K-k)
				ahead := inner // to the next elements of the same row, or of one that comes with the next group
				if k+inner == K {
					ahead += (partGroup - 1) * K
				}
				var absmax []float32
				if scales != nil {
					absmax = scales[k/wholeBlock:]
				}
				b.loops.parts.rows(rows, count, inner, weight, n*K+k, absmax, ahead)
				b.loops.parts.product(sums, (count+partTile-1)/partTile, panels, inner, rows, split[3*k*partTile:], 3*partTile*K)
			}
			b.turn(w, out, sums, n, count, tokens, bias)
		}
	})
}

// linearBackwardParts is LinearBackward of parts. It reports whether that is worth it.
func (b *Backend) linearBackwardParts(dx, dout, weight kernels.Tensor) bool {
	T, K, N := dx.Rows, dx.Cols, weight.Rows
	if N%32 != 0 || K%32 != 0 || !b.splits(T, N, K) {
		return false
	}
	chunk := N
	switch q := weight.Quant; weight.DType {
	case kernels.F16, kernels.BF16:
	case kernels.NF4:
		if q.Round != kernels.F16 {
			return false
		}
		chunk = partChunk
	default:
		return false
	}
	for n := 0; n < N; n += chunk {
		rows, part := min(chunk, N-n), weight
		if weight.DType == kernels.NF4 {
			part = b.dequantizeRows(weight, n, rows)
		}
		for t := 0; t < T; t += tileTokens {
			tokens := min(tileTokens, T-t)
			b.multiplyBackParts(dx.Slice(t, t+tokens), dout.Slice(t, t+tokens), n, rows, part)
		}
	}
	return true
}

// multiplyBackParts adds to dx (T,K) columns [first,first+N) of dout times weight (N,K).
func (b *Backend) multiplyBackParts(dx, dout kernels.Tensor, first, N int, weight kernels.Tensor) {
	T, K, stride := dx.Rows, dx.Cols, dout.Cols
	panels, blocks := (T+partTile-1)/partTile, (N+innerBlock-1)/innerBlock
	tokens := panels * partTile
	if n := blocks * tokens * partRowThree; cap(b.parts) < n {
		b.parts = make([]uint16, n)
	}
	split, ds, dxs := b.parts[:blocks*tokens*partRowThree], dout.F32s(), dx.F32s()
	b.pool.each(panels*blocks, grain(partTile*innerBlock/4), func(w *worker, lo, hi int) {
		for item := lo; item < hi; item++ {
			t, n := item/blocks*partTile, item%blocks*innerBlock
			b.loops.parts.rowsThree(split[(n/innerBlock*tokens+t)*partRowThree:], min(partTile, T-t), min(innerBlock, N-n), ds[t*stride+first+n:], stride)
		}
	})
	b.pool.each((K+partColumns-1)/partColumns, 1, func(w *worker, lo, hi int) {
		sums := w.floats(1, tokens*partColumns)
		words := w.floats(0, partColumns/partTile*columnWords/2)
		columns := kernels.HostTensor(kernels.BF16, 1, 2*len(words), kernels.AsBytes(words)).F16s()
		for group := lo; group < hi; group++ {
			col := group * partColumns
			width := min(partColumns, K-col)
			clear(sums)
			for n := 0; n < N; n += innerBlock {
				count := min(innerBlock, N-n)
				for c := 0; c < width; c += partTile {
					b.loops.parts.columns(columns[c/partTile*columnWords:], count, weight, n*K+col+c, innerBlock*K)
				}
				b.loops.parts.productBack(sums, partColumns, panels, width/partTile, count, split[n/innerBlock*tokens*partRowThree:], columns)
			}
			for t := range T {
				to := dxs[t*K+col:][:width]
				b.loops.add(to, to, sums[t*partColumns:])
			}
		}
	})
}
