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

// loadNF4 dequantises len(dst) weights of t from the flat index at, whole blocks together.
func (b *Backend) loadNF4(dst []float32, t kernels.Tensor, at int) {
	q := t.Quant
	var absmax [64]float32
	for len(dst) > 0 {
		block, size, blocks := at/q.BlockSize, q.BlockSize, 1
		if at%size != 0 || len(dst) < size {
			size = min(len(dst), (block+1)*q.BlockSize-at)
		} else {
			blocks = min(len(dst)/size, len(absmax))
		}
		for i := range blocks {
			absmax[i] = q.BlockAbsmax(block + i)
		}
		b.loops.fromNF4(dst, size, t.Host, at, absmax[:blocks], q.Round)
		dst, at = dst[blocks*size:], at+blocks*size
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
