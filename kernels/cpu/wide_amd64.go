package cpu

import (
	"unsafe"

	"golang.org/x/sys/cpu"

	"quartet/kernels"
)

// avx512Loops are avx2Loops but for products and attention.
var avx512Loops = func() loops {
	l := avx2Loops
	l.dotRows = [7]int{0, 4, 4, 4, 4, 4, 4}
	l.tileRows, l.tileColumns = 12, 32
	l.tile, l.packRows, l.packColumns = avx512Tile, avx512PackRows, avx512PackColumns
	l.dots, l.dotsNF4 = avx512Dots, avx512DotsNF4
	if cpu.X86.HasAVX512VNNI {
		l.wholeSplit, l.wholeDots, l.wholeRows = avx512WholeSplit, avx512WholeDots, 64
	}
	l.scores = func(out, q, rows []float32, stride int, scale float32) {
		wideScores(len(out), len(q), unsafe.SliceData(out), unsafe.SliceData(q), unsafe.SliceData(rows), uintptr(4*stride), scale)
	}
	l.weigh = func(out, p, rows []float32, stride int, scale float32) {
		wideWeigh(len(p), len(out), unsafe.SliceData(out), unsafe.SliceData(p), unsafe.SliceData(rows), uintptr(4*stride), scale)
	}
	l.outer = func(rows []float32, stride int, p, x []float32) {
		wideOuter(len(p), len(x), unsafe.SliceData(rows), uintptr(4*stride), unsafe.SliceData(p), unsafe.SliceData(x))
	}
	return l
}()

// avx512WholeSplit and avx512WholeDots take pairs of blocks, and leave rows of an odd number to AVX2.
func avx512WholeSplit(a whole, x []float32, tokens int) {
	if a.blocks%2 != 0 {
		avx2WholeSplit(a, x, tokens)
		return
	}
	wideWholeSplit(tokens*a.blocks, &a.words[0], &a.scales[0], &x[0])
}

var wideWholeKernels = [...]func(n, pairs int, out *float32, outRow, outToken uintptr, codes, absmax *byte, first, other int, values, nested *float32, words *int16, wordToken uintptr, steps *float32, stepToken uintptr, offset float32){
	nil, wideWholeDot1, wideWholeDot2, wideWholeDot3}

// avx512WholeDots takes a row of the first half and one of the second at a time. Where they are odd in number, both halves
// have the middle one.
func avx512WholeDots(w *worker, out []float32, outRow int, t kernels.Tensor, row, rows int, a whole, tokens int) {
	if a.blocks%2 != 0 {
		avx2WholeDots(w, out, outRow, t, row, rows, a, tokens)
		return
	}
	q, K, half := t.Quant, t.Cols, (rows+1)/2
	inTurns(tokens, len(wideWholeKernels)-1, func(at, each int) {
		wideWholeKernels[each](half, a.blocks/2, &out[at*outRow], uintptr(4*(rows-half)), uintptr(4*outRow), &t.Host[row*K/2], &q.Absmax.Host[row*a.blocks], row*a.blocks, (rows-half)*a.blocks,
			&kernels.SignedMap[0], &q.NestedAbsmax.F32s()[0], &a.words[at*K], uintptr(2*K), &a.scales[8*at*a.blocks], uintptr(32*a.blocks), q.NestedOffset)
	})
}

var wideGemm = [...]func(k int, a *float32, aRow, aCol uintptr, b, c *float32, cRow uintptr, alpha float32){
	nil, wideGemm1, wideGemm2, wideGemm3, wideGemm4, wideGemm5, wideGemm6,
	wideGemm7, wideGemm8, wideGemm9, wideGemm10, wideGemm11, wideGemm12,
}

func avx512Tile(rows, k int, a []float32, aRow, aCol int, panel, c []float32, cRow int, alpha float32) {
	wideGemm[rows](k, unsafe.SliceData(a), uintptr(4*aRow), uintptr(4*aCol), unsafe.SliceData(panel), unsafe.SliceData(c), uintptr(4*cRow), alpha)
}

func avx512PackRows(panel []float32, t kernels.Tensor, at, stride, k int) {
	dst := unsafe.SliceData(panel)
	switch t.DType {
	case kernels.F32:
		pack32RowsF32(k, dst, &t.F32s()[at], uintptr(4*stride))
	case kernels.F16:
		pack32RowsF16(k, dst, &t.F16s()[at], uintptr(2*stride))
	case kernels.BF16:
		pack32RowsBF16(k, dst, &t.F16s()[at], uintptr(2*stride))
	}
}

func avx512PackColumns(panel []float32, t kernels.Tensor, at, stride, k int) {
	for part := range 4 {
		dst, from := &panel[8*part], at+8*part*stride
		switch t.DType {
		case kernels.F32:
			pack32ColumnsF32(k, dst, &t.F32s()[from], uintptr(4*stride))
		case kernels.F16:
			pack32ColumnsF16(k, dst, &t.F16s()[from], uintptr(2*stride))
		case kernels.BF16:
			pack32ColumnsBF16(k, dst, &t.F16s()[from], uintptr(2*stride))
		}
	}
}

var wideDotsNF4 = [3][5]dotNF4Kernel{
	kernels.F32:  {nil, wideDotNF4F32x1, wideDotNF4F32x2, wideDotNF4F32x3, wideDotNF4F32x4},
	kernels.F16:  {nil, wideDotNF4F16x1, wideDotNF4F16x2, wideDotNF4F16x3, wideDotNF4F16x4},
	kernels.BF16: {nil, wideDotNF4BF16x1, wideDotNF4BF16x2, wideDotNF4BF16x3, wideDotNF4BF16x4},
}

func avx512DotsNF4(out []float32, size int, codes []byte, at int, absmax []float32, round kernels.DType, x []float32, xRow, n, tokens int) {
	wideDotsNF4[round][tokens](n, size-at%size, size, &out[0], &codes[at/2], &absmax[0], &x[0], uintptr(4*xRow))
}

// The kernels by tokens, for one row and for four.
var (
	wideDotsF32 = [7][2]dotKernel[float32]{{}, {wideDotF321x1, wideDotF324x1}, {wideDotF321x2, wideDotF324x2},
		{wideDotF321x3, wideDotF324x3}, {wideDotF321x4, wideDotF324x4}, {wideDotF321x5, wideDotF324x5}, {wideDotF321x6, wideDotF324x6}}
	wideDotsF16 = [7][2]dotKernel[uint16]{{}, {wideDotF161x1, wideDotF164x1}, {wideDotF161x2, wideDotF164x2},
		{wideDotF161x3, wideDotF164x3}, {wideDotF161x4, wideDotF164x4}, {wideDotF161x5, wideDotF164x5}, {wideDotF161x6, wideDotF164x6}}
)

func avx512Dots(out []float32, w kernels.Tensor, at, stride int, x []float32, xRow, n, rows, tokens int) {
	dotsBy(&wideDotsF32, &wideDotsF16, 4, 16, out, w, at, stride, x, xRow, n, rows, tokens)
}
