package cpu

import (
	"math"

	"quartet/kernels"
)

// loops are the inner loops that exist in several versions, one of which New chooses. Where slices of one operation have
// a length in common, it is the first slice's. Strides are in elements.
type loops struct {
	directF16 bool   // whether dots reads F16 weights as they are
	dotRows   [7]int // how many rows of weights dots takes at once, for a number of tokens

	// A product's tile: how many rows it has at most, and columns, of which as many make up a panel.
	tileRows, tileColumns int

	// Conversions. nestedScales undoes double quantisation: dst = SignedMap[codes]·scale + offset. fromNF4 dequantises the weights from element at, in blocks of size, the first of which has absmax[0].
	fromF16, fromBF16 func(dst []float32, src []uint16)
	toF16             func(dst []uint16, src []float32)
	fromNF4           func(dst []float32, size int, codes []byte, at int, absmax []float32, round kernels.DType)
	nestedScales      func(dst []float32, codes []byte, scale, offset float32)
	largest           func(x []float32) float32                         // max |x|, passing over NaN
	nf4Blocks         func(codes []byte, absmax, x []float32, size int) // quantises blocks of size, the last of which may be short

	// Products. tile: c (rows,tileColumns) += alpha·a (rows,k)·panel (k,tileColumns), rows at most tileRows. packRows
	// fills a panel with k rows of tileColumns elements of t, packColumns with k elements of each of tileColumns rows, k
	// then a multiple of 8. dots: out (rows,tokens) = w (rows,n)·x (tokens,n)ᵀ for at most dotRows rows and six tokens.
	tile        func(rows, k int, a []float32, aRow, aCol int, panel, c []float32, cRow int, alpha float32)
	packRows    func(panel []float32, t kernels.Tensor, at, stride, k int)
	packColumns func(panel []float32, t kernels.Tensor, at, stride, k int)
	dots        func(out []float32, w kernels.Tensor, at, stride int, x []float32, xRow, n, rows, tokens int)

	// dotsNF4: out (tokens) = n NF4 weights from element at, as fromNF4 has them, · x (tokens,n)ᵀ for at most four tokens.
	// Of each 32 elements of x those of even index come first. at, size and n are multiples of 32. nil: there is none.
	dotsNF4 func(out []float32, size int, codes []byte, at int, absmax []float32, round kernels.DType, x []float32, xRow, n, tokens int)

	// f16Rows and nf4Rows widen count weights of each row from element at on: a multiple of 32, or of NF4's blocks of 64, whose
	// scales are absmax. They ask for what lies ahead elements further. nil: there is none.
	f16Rows func(dst []float32, dstRow, rows, count int, t kernels.Tensor, at, ahead int)
	nf4Rows func(dst []float32, dstRow, rows, count int, t kernels.Tensor, at int, absmax []float32, ahead int)

	// wholeSplit turns activations into whole numbers, and wholeDots multiplies rows of NF4 weights in blocks of 64, their
	// absmaxima quantised in nested blocks of 256, by tokens of them: out (tokens,rows), tokens outRow apart. wholeRows are a
	// good number of rows to share work by. nil: there is none.
	wholeSplit func(a whole, x []float32, tokens int)
	wholeDots  func(w *worker, out []float32, outRow int, t kernels.Tensor, row, rows int, a whole, tokens int)
	wholeRows  int

	parts *parts // nil: there is no unit for them

	// Elements.
	add       func(out, x, y []float32)
	multiply  func(out, x []float32, s float32)
	gelu      func(out, x []float32)
	geluSlope func(out, dout, x []float32)

	// Rows.
	sum        func(x []float32) float32
	squares    func(x []float32) float64
	sumSquares func(x []float32, mean float32) float32
	normalise  func(out, x, weight, bias []float32, mean, scale float32)
	normSums   func(dout, x, weight []float32, mean, scale float32) (sum, along float32)
	normSlope  func(out, dout, x, weight []float32, mean, scale, sum, along float32)
	top        func(x []float32) float32
	expSum     func(out, x []float32, shift float32) float32 // out = exp(x-shift), and its sum

	// Attention, of one query and n rows of len(q), len(out) or len(x) elements.
	scores     func(out, q, rows []float32, stride int, scale float32) // out[j] = scale·q·row j
	weigh      func(out, p, rows []float32, stride int, scale float32) // out = scale·Σ p[j]·row j
	outer      func(rows []float32, stride int, p, x []float32)        // row j += p[j]·x
	scoreSlope func(out, dp []float32, mean, scale float32)            // out = out·(dp-mean)·scale

	// dropout is of one token from column 0.
	dropout func(out, x []float32, d *dropoutRow)
}

// dropoutRow is what determines a token's mask: the layout is the vector kernel's.
type dropoutRow struct {
	threshold, position, row, step uint32
	key                            [2]uint32
	scale                          float32
}

func exp32(x float32) float32 { return float32(math.Exp(float64(x))) }
