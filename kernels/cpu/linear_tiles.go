package cpu

import "quartet/kernels"

// tileGroup is how many rows of weights linearTiles widens at once: whole tiles of every version. tileTokens bounds the
// tokens that it lays out anew.
const (
	tileGroup  = 48
	tileTokens = 512
	tilesFrom  = 1 << 19 // weights: smaller matrices stay in the caches, and packing them costs no more than the tokens
)

// tileStride is the distance of rows that are widened: those of a tile must not compete for the same places in the cache.
const tileStride = innerBlock + 24

// linearTiles is prefill's product, computed as outᵀ = weight·xᵀ: the activations are packed once, and a weight is widened
// where it lies and used for all tokens. The order of a sum is that of multiply. It reports whether that is worth it.
func (b *Backend) linearTiles(out, x, weight kernels.Tensor, bias []float32) bool {
	T, K, N := x.Rows, x.Cols, weight.Rows
	width := b.loops.tileColumns
	padded := (T + width - 1) / width * width
	if K%8 != 0 || N*K < tilesFrom || N < 2*T || 3*T < 2*padded {
		return false
	}
	for t := 0; t < T; t += tileTokens {
		rows := min(tileTokens, T-t)
		b.multiplyTiles(out.Slice(t, t+rows), b.packTokens(x.Slice(t, t+rows)), weight, bias)
	}
	return true
}

// packTokens is x (T,K) as panels (K,tileColumns) of tokens, with zeros for those that are missing. It is valid until rows
// are laid out anew.
func (b *Backend) packTokens(x kernels.Tensor) []float32 {
	T, K, width := x.Rows, x.Cols, b.loops.tileColumns
	panels, parts := (T+width-1)/width, (K+innerBlock-1)/innerBlock
	if n := panels * width * K; cap(b.rows) < n {
		b.rows = make([]float32, n)
	}
	packed := b.rows[:panels*width*K]
	b.pool.each(panels*parts, grain(width*innerBlock/4), func(w *worker, lo, hi int) {
		for item := lo; item < hi; item++ {
			t, k := item/parts*width, item%parts*innerBlock
			b.panelAcross(w, packed[t*K+k*width:], x, t*K+k, K, min(innerBlock, K-k), min(width, T-t))
		}
	})
	return packed
}

// multiplyTiles sets out (T,N) from the tokens' panels.
func (b *Backend) multiplyTiles(out kernels.Tensor, packed []float32, weight kernels.Tensor, bias []float32) {
	T, N, K := out.Rows, out.Cols, weight.Cols
	width, tileRows := b.loops.tileColumns, b.loops.tileRows
	tokens := (T + width - 1) / width * width
	b.pool.each((N+tileGroup-1)/tileGroup, 1, func(w *worker, lo, hi int) {
		wide := w.floats(0, tileGroup*tileStride)
		high := (tileGroup + width - 1) / width * width
		sums := w.floats(1, high*tokens) // (tileGroup,tokens), and rows up to whole panels
		for group := lo; group < hi; group++ {
			n := group * tileGroup
			rows := min(tileGroup, N-n)
			clear(sums)
			scales := b.rowScales(w, weight, n, rows)
			for k := 0; k < K; k += innerBlock {
				count := min(innerBlock, K-k)
				b.widenRows(wide, weight, scales, n, rows, k, count)
				for t := 0; t < tokens; t += width {
					panel := packed[t*K+k*width:]
					for r := 0; r < rows; r += tileRows {
						b.loops.tile(min(tileRows, rows-r), count, wide[r*tileStride:], tileStride, 1, panel, sums[r*tokens+t:], tokens, 1)
					}
				}
			}
			b.turn(w, out, sums, n, rows, tokens, bias)
		}
	})
}

// turn sets columns [n,n+rows) of out (T,N) from sums (rows,tokens), which has room for rows up to whole panels.
func (b *Backend) turn(w *worker, out kernels.Tensor, sums []float32, n, rows, tokens int, bias []float32) {
	o, N, width := out.F32s(), out.Cols, b.loops.tileColumns
	turned := w.floats(2, tokens*width)
	all := kernels.HostTensor(kernels.F32, len(sums)/tokens, tokens, kernels.AsBytes(sums))
	for r := 0; r < rows; r += width {
		b.loops.packColumns(turned, all, r*tokens, tokens, tokens)
		count := min(width, rows-r)
		for t := range out.Rows {
			to, from := o[t*N+n+r:][:count], turned[t*width:][:count]
			if bias == nil {
				copy(to, from)
			} else {
				b.loops.add(to, from, bias[n+r:])
			}
		}
	}
}

// widenRows fills wide, whose rows lie tileStride apart, with count elements, from column k, of the rows of weights from row on.
// scales are those of the rows' blocks where these are NF4 in blocks that rows begin with.
func (b *Backend) widenRows(wide []float32, weight kernels.Tensor, scales []float32, row, rows, k, count int) {
	K, ahead := weight.Cols, count // to the next elements of the same row, or of one that comes with the next group
	if k+count == K {
		ahead += (tileGroup - 1) * K
	}
	at := row*K + k
	switch {
	case scales != nil && count%wholeBlock == 0 && b.loops.nf4Rows != nil:
		b.loops.nf4Rows(wide, tileStride, rows, count, weight, at, scales[k/wholeBlock:], ahead)
	case weight.DType == kernels.F16 && count%32 == 0 && b.loops.f16Rows != nil:
		b.loops.f16Rows(wide, tileStride, rows, count, weight, at, ahead)
	default:
		for r := range rows {
			b.load(wide[r*tileStride:][:count], weight, at+r*K)
		}
	}
}

// rowScales are the scales of some rows' blocks of NF4 weights, if rows begin with blocks of 64, else nil.
func (b *Backend) rowScales(w *worker, weight kernels.Tensor, row, rows int) []float32 {
	if q := weight.Quant; weight.DType != kernels.NF4 || q.BlockSize != wholeBlock || weight.Cols%wholeBlock != 0 {
		return nil
	}
	blocks := weight.Cols / wholeBlock
	scales := w.floats(3, rows*blocks)
	b.loops.absmaxima(scales, weight.Quant, row*blocks)
	return scales
}
