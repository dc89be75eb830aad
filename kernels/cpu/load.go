package cpu

import (
	"fmt"

	"quartet/kernels"
)

// load widens len(dst) elements of t to float32, from the flat index at.
func (b *Backend) load(dst []float32, t kernels.Tensor, at int) {
	switch t.DType {
	case kernels.F32:
		copy(dst, t.F32s()[at:])
	case kernels.F16:
		b.loops.fromF16(dst, t.F16s()[at:])
	case kernels.BF16:
		b.loops.fromBF16(dst, t.F16s()[at:])
	case kernels.NF4:
		b.loadNF4(dst, t, at)
	default:
		panic(fmt.Sprintf("cpu: read %v as numbers", t))
	}
}

// loadNF4 dequantises len(dst) weights of t from the flat index at.
func (b *Backend) loadNF4(dst []float32, t kernels.Tensor, at int) {
	q := t.Quant
	for len(dst) > 0 {
		block := at / q.BlockSize
		n := min(len(dst), (block+1)*q.BlockSize-at)
		b.loops.fromNF4(dst[:n], t.Host, at, q.BlockAbsmax(block), q.Round)
		dst, at = dst[n:], at+n
	}
}

// row is row r of t as float32: the tensor's own memory for F32, otherwise a copy in buffer.
func (b *Backend) row(buffer []float32, t kernels.Tensor, r int) []float32 {
	if t.DType == kernels.F32 {
		return t.F32s()[r*t.Cols:][:t.Cols]
	}
	b.load(buffer[:t.Cols], t, r*t.Cols)
	return buffer[:t.Cols]
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
