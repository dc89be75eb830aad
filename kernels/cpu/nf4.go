package cpu

import (
	"quartet/kernels"
)

// QuantizeNF4 sets out from x of the same shape: each block is scaled by its absmax and rounded to the nearest of
// sixteen values, and with double quantisation the absmaxima, less their mean, to the signed 8-bit map. A block of zeros
// has 0/0 for its weights, which is code 0, as CUDA has it.
func (b *Backend) QuantizeNF4(out, x kernels.Tensor) {
	kernels.WantNF4("QuantizeNF4", "out", out)
	kernels.WantFloat("QuantizeNF4", "x", x, out.Rows, out.Cols)
	q, n := out.Quant, x.Len()
	blocks := q.Absmax.Cols
	absmax := make([]float32, blocks)
	b.pool.each(blocks, max(32, grain(2*q.BlockSize)), func(w *worker, lo, hi int) {
		const together = 32 // blocks
		buffer := w.floats(0, together*q.BlockSize)
		for block := lo; block < hi; block += together {
			end := min(hi, block+together)
			from, to := block*q.BlockSize, min(n, end*q.BlockSize)
			b.load(buffer[:to-from], x, from)
			b.loops.nf4Blocks(out.Host[from/2:(to+1)/2], absmax[block:end], buffer[:to-from], q.BlockSize)
		}
	})
	if q.NestedBlockSize == 0 {
		copy(q.Absmax.F32s(), absmax)
		return
	}
	var sum float64
	for _, a := range absmax {
		sum += float64(a)
	}
	q.NestedOffset = float32(sum / float64(max(1, blocks)))
	nested := q.NestedAbsmax.F32s()
	b.pool.each(len(nested), grain(16*q.NestedBlockSize), func(_ *worker, lo, hi int) {
		for i := lo; i < hi; i++ {
			from, to := i*q.NestedBlockSize, min(blocks, (i+1)*q.NestedBlockSize)
			values := absmax[from:to]
			for j := range values {
				values[j] -= q.NestedOffset
			}
			nested[i] = b.loops.largest(values)
			scale := 1 / nested[i]
			for j, a := range values {
				q.Absmax.Host[from+j] = kernels.SignedCode(float32(a * scale))
			}
		}
	})
}

// DequantizeNF4 sets out from x, rounded first to x.Quant.Round.
func (b *Backend) DequantizeNF4(out, x kernels.Tensor) {
	kernels.WantNF4("DequantizeNF4", "x", x)
	kernels.WantFloat("DequantizeNF4", "out", out, x.Rows, x.Cols)
	b.pool.each(x.Len(), flat, func(w *worker, lo, hi int) {
		if out.DType == kernels.F32 {
			b.loadNF4(out.F32s()[lo:hi], x, lo)
			return
		}
		wide := w.floats(0, hi-lo)
		b.loadNF4(wide, x, lo)
		b.store(out, lo, wide)
	})
}
