package cpu

import (
	"fmt"

	"quartet/kernels"
)

// load widens len(dst) elements of t to float32, from the flat index at.
func (b *Backend) load(dst []float32, t kernels.Tensor, at int) {
	if t.DType == kernels.NF4 {
		b.loadNF4(dst, t, at)
		return
	}
	widen(b.loops, dst, t, at)
}

func widen(l *loops, dst []float32, t kernels.Tensor, at int) {
	switch t.DType {
	case kernels.F32:
		copy(dst, t.F32s()[at:])
	case kernels.F16:
		l.fromF16(dst, t.F16s()[at:])
	case kernels.BF16:
		l.fromBF16(dst, t.F16s()[at:])
	default:
		panic(fmt.Sprintf("cpu: read %v as numbers", t))
	}
}

// loadNF4 dequantises len(dst) weights of t from the flat index at.
func (b *Backend) loadNF4(dst []float32, t kernels.Tensor, at int) {
	q := t.Quant
	var buffer [64]float32
	for len(dst) > 0 {
		n := min(len(dst), len(buffer)*q.BlockSize-at%q.BlockSize)
		first, last := at/q.BlockSize, (at+n-1)/q.BlockSize
		absmax := buffer[:last-first+1]
		b.loops.absmaxima(absmax, q, first)
		b.loops.fromNF4(dst[:n], q.BlockSize, t.Host, at, absmax, q.Round)
		dst, at = dst[n:], at+n
	}
}

// absmaxima are the scales of len(dst) blocks.
func (l *loops) absmaxima(dst []float32, q *kernels.Quant, block int) {
	if q.NestedBlockSize == 0 {
		copy(dst, q.Absmax.F32s()[block:])
		return
	}
	scales, codes := q.NestedAbsmax.F32s(), q.Absmax.Host
	for len(dst) > 0 {
		group := block / q.NestedBlockSize
		n := min(len(dst), (group+1)*q.NestedBlockSize-block)
		l.nestedScales(dst[:n], codes[block:], scales[group], q.NestedOffset)
		dst, block = dst[n:], block+n
	}
}

// store rounds float32 elements to t's type, from the flat index at.
func (b *Backend) store(t kernels.Tensor, at int, src []float32) {
	switch t.DType {
	case kernels.F32:
		copy(t.F32s()[at:], src)
	case kernels.F16:
		b.loops.toF16(t.F16s()[at:][:len(src)], src)
	case kernels.BF16:
		dst := t.F16s()[at:][:len(src)]
		for i, v := range src {
			dst[i] = kernels.F32ToBF16(v)
		}
	default:
		panic(fmt.Sprintf("cpu: write numbers to %v", t))
	}
}

// weightVector is a vector of weights as float32, valid until slot is used again.
func (b *Backend) weightVector(slot int, t kernels.Tensor) []float32 {
	if t.DType == kernels.F32 {
		return t.F32s()
	}
	if cap(b.vector[slot]) < t.Len() {
		b.vector[slot] = make([]float32, t.Len())
	}
	v := b.vector[slot][:t.Len()]
	b.load(v, t, 0)
	return v
}
