package cpu

import (
	"math"

	"quartet/kernels"
)

// loops are the inner loops that exist in several versions, one of which New chooses. Slices named first set the
// length; the others are at least as long.
type loops struct {
	name     string
	fromF16  func(dst []float32, src []uint16)
	fromBF16 func(dst []float32, src []uint16)
	fromNF4  func(dst []float32, codes []byte, at int, absmax float32, round kernels.DType)
	dot      func(x, y []float32) float32
	axpy     func(y []float32, a float32, x []float32) // y += a·x
}

var plainLoops = loops{
	name:     "plain",
	fromF16:  plainFromF16,
	fromBF16: plainFromBF16,
	fromNF4:  plainFromNF4,
	dot:      plainDot,
	axpy:     plainAxpy,
}

func bestLoops() *loops { return &plainLoops }

func plainFromF16(dst []float32, src []uint16) {
	src = src[:len(dst)]
	for i, h := range src {
		dst[i] = kernels.F16ToF32(h)
	}
}

func plainFromBF16(dst []float32, src []uint16) {
	src = src[:len(dst)]
	for i, h := range src {
		dst[i] = kernels.BF16ToF32(h)
	}
}

// plainFromNF4 dequantises weights of one block from the flat index at: the codebook is scaled and rounded once.
func plainFromNF4(dst []float32, codes []byte, at int, absmax float32, round kernels.DType) {
	var values [16]float32
	for i, v := range kernels.NF4Values {
		values[i] = rounded(float32(v*absmax), round)
	}
	for i := range dst {
		e := at + i
		dst[i] = values[codes[e/2]>>(4*(^e&1))&15]
	}
}

func rounded(x float32, d kernels.DType) float32 {
	switch d {
	case kernels.F16:
		return kernels.F16ToF32(kernels.F32ToF16(x))
	case kernels.BF16:
		return kernels.BF16ToF32(kernels.F32ToBF16(x))
	}
	return x
}

func plainDot(x, y []float32) float32 {
	y = y[:len(x)]
	var s0, s1, s2, s3 float32
	i := 0
	for ; i+4 <= len(x); i += 4 {
		s0 += x[i] * y[i]
		s1 += x[i+1] * y[i+1]
		s2 += x[i+2] * y[i+2]
		s3 += x[i+3] * y[i+3]
	}
	for ; i < len(x); i++ {
		s0 += x[i] * y[i]
	}
	return s0 + s1 + (s2 + s3)
}

func plainAxpy(y []float32, a float32, x []float32) {
	x = x[:len(y)]
	for i := range y {
		y[i] += a * x[i]
	}
}

func exp32(x float32) float32 { return float32(math.Exp(float64(x))) }
