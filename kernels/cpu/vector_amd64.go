package cpu

//go:generate go -C gen run . -out ../avx2_amd64.s -stubs ../avx2_amd64.go -pkg cpu
//go:generate go -C gen run . -512 -out ../avx512_amd64.s -stubs ../avx512_amd64.go -pkg cpu
//go:generate go -C gen run . -amx -out ../amx_amd64.s -stubs ../amx_amd64.go -pkg cpu

import (
	"unsafe"

	"golang.org/x/sys/cpu"

	"quartet/kernels"
)

// loopsOf are a path's, nil where this processor doesn't run them.
func loopsOf(p Path) *loops {
	x := &cpu.X86
	narrow := x.HasAVX2 && x.HasFMA && x.HasF16C
	wide := narrow && x.HasBMI2 && x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL
	switch {
	case p == Plain:
		return &plainLoops
	case p == AVX2 && narrow:
		return &avx2Loops
	case p == AVX512 && wide:
		return &avx512Loops
	case p == AMX && wide && hasTiles():
		return &amxLoops
	}
	return nil
}

// avx2Loops call the generated kernels.
var avx2Loops = loops{
	directF16: true, dotRows: avx2DotRows,
	tileRows: 6, tileColumns: 16,
	fromF16: avx2FromF16, fromBF16: avx2FromBF16, toF16: avx2ToF16,
	fromNF4: avx2FromNF4, nestedScales: avx2NestedScales, nf4Blocks: avx2NF4Blocks,
	largest: func(x []float32) float32 { return maxAbs(len(x), unsafe.SliceData(x)) },

	tile: avx2Tile, packRows: avx2PackRows, packColumns: avx2PackColumns, dots: avx2Dots, dotsNF4: avx2DotsNF4,
	f16Rows: avx2F16Rows, nf4Rows: avx2NF4Rows,
	wholeSplit: avx2WholeSplit,
	wholeDots:  avx2WholeDots,
	wholeRows:  32,

	add: func(out, x, y []float32) {
		add(len(out), unsafe.SliceData(out), unsafe.SliceData(x), unsafe.SliceData(y))
	},
	multiply: func(out, x []float32, s float32) {
		multiply(len(out), unsafe.SliceData(out), unsafe.SliceData(x), s)
	},
	gelu: func(out, x []float32) { gelu(len(out), unsafe.SliceData(out), unsafe.SliceData(x)) },
	geluSlope: func(out, dout, x []float32) {
		geluSlope(len(out), unsafe.SliceData(out), unsafe.SliceData(dout), unsafe.SliceData(x))
	},

	sum: func(x []float32) float32 { return sumOf(len(x), unsafe.SliceData(x)) },
	squares: func(x []float32) float64 {
		whole := len(x) &^ 15
		return squares(whole, unsafe.SliceData(x)) + plainSquares(x[whole:])
	},
	sumSquares: func(x []float32, mean float32) float32 { return sumSquares(len(x), unsafe.SliceData(x), mean) },
	normalise: func(out, x, weight, bias []float32, mean, scale float32) {
		normalise(len(out), unsafe.SliceData(out), unsafe.SliceData(x), unsafe.SliceData(weight), unsafe.SliceData(bias), mean, scale)
	},
	normSums: func(dout, x, weight []float32, mean, scale float32) (sum, along float32) {
		return normSums(len(dout), unsafe.SliceData(dout), unsafe.SliceData(x), unsafe.SliceData(weight), mean, scale)
	},
	normSlope: func(out, dout, x, weight []float32, mean, scale, sum, along float32) {
		o := unsafe.SliceData(out)
		normSlope(len(out), o, o, unsafe.SliceData(dout), unsafe.SliceData(x), unsafe.SliceData(weight), mean, scale, sum, along)
	},
	top: func(x []float32) float32 { return maxOf(len(x), unsafe.SliceData(x)) },
	expSum: func(out, x []float32, shift float32) float32 {
		return expSum(len(out), unsafe.SliceData(out), unsafe.SliceData(x), shift)
	},

	scores: func(out, q, rows []float32, stride int, scale float32) {
		scores(len(out), len(q), unsafe.SliceData(out), unsafe.SliceData(q), unsafe.SliceData(rows), uintptr(4*stride), scale)
	},
	weigh: func(out, p, rows []float32, stride int, scale float32) {
		weigh(len(p), len(out), unsafe.SliceData(out), unsafe.SliceData(p), unsafe.SliceData(rows), uintptr(4*stride), scale)
	},
	outer: func(rows []float32, stride int, p, x []float32) {
		outer(len(p), len(x), unsafe.SliceData(rows), uintptr(4*stride), unsafe.SliceData(p), unsafe.SliceData(x))
	},
	scoreSlope: func(out, dp []float32, mean, scale float32) {
		o := unsafe.SliceData(out)
		scoreSlope(len(out), o, o, unsafe.SliceData(dp), mean, scale)
	},

	dropout: func(out, x []float32, d *dropoutRow) {
		whole := len(out) &^ 31
		args := [6]uint32{d.threshold, d.position, d.row, d.step, d.key[0], d.key[1]}
		dropout(whole, unsafe.SliceData(out), unsafe.SliceData(x), &args, d.scale)
		dropoutFrom(whole, out, x, d)
	},
}

func avx2FromF16(dst []float32, src []uint16) {
	whole := len(dst) &^ 7
	widenF16(whole, unsafe.SliceData(dst), unsafe.SliceData(src))
	plainFromF16(dst[whole:], src[whole:])
}

func avx2FromBF16(dst []float32, src []uint16) {
	whole := len(dst) &^ 7
	widenBF16(whole, unsafe.SliceData(dst), unsafe.SliceData(src))
	plainFromBF16(dst[whole:], src[whole:])
}

func avx2ToF16(dst []uint16, src []float32) {
	whole := len(dst) &^ 7
	narrowF16(whole, unsafe.SliceData(dst), unsafe.SliceData(src))
	plainToF16(dst[whole:], src[whole:])
}

// avx2FromNF4 leaves what is before and after a multiple of 32 to plain Go.
func avx2FromNF4(dst []float32, size int, codes []byte, at int, absmax []float32, round kernels.DType) {
	before := min(len(dst), -at&31)
	whole := (len(dst) - before) &^ 31
	if size%32 != 0 || whole == 0 {
		plainFromNF4(dst, size, codes, at, absmax, round)
		return
	}
	if before > 0 {
		plainFromNF4(dst[:before], size, codes, at, absmax, round)
		absmax = absmax[(at+before)/size-at/size:]
		dst, at = dst[before:], at+before
	}
	kernel := nf4ToF32
	switch round {
	case kernels.F16:
		kernel = nf4ToF16
	case kernels.BF16:
		kernel = nf4ToBF16
	}
	kernel(whole, size-at%size, size, unsafe.SliceData(dst), &codes[at/2], unsafe.SliceData(absmax))
	if whole < len(dst) {
		plainFromNF4(dst[whole:], size, codes, at+whole, absmax[(at+whole)/size-at/size:], round)
	}
}

func avx2NestedScales(dst []float32, codes []byte, scale, offset float32) {
	whole := len(dst) &^ 7
	nestedScales(whole, unsafe.SliceData(dst), unsafe.SliceData(codes), &kernels.SignedMap[0], scale, offset)
	plainNestedScales(dst[whole:], codes[whole:], scale, offset)
}

type dotNF4Kernel func(n, first, size int, out *float32, codes *byte, absmax, x *float32, xRow uintptr)

// The kernels by what weights are rounded to, and by tokens.
var dotsNF4 = [3][5]dotNF4Kernel{
	kernels.F32:  {nil, dotNF4F32x1, dotNF4F32x2, dotNF4F32x3, dotNF4F32x4},
	kernels.F16:  {nil, dotNF4F16x1, dotNF4F16x2, dotNF4F16x3, dotNF4F16x4},
	kernels.BF16: {nil, dotNF4BF16x1, dotNF4BF16x2, dotNF4BF16x3, dotNF4BF16x4},
}

func avx2DotsNF4(out []float32, size int, codes []byte, at int, absmax []float32, round kernels.DType, x []float32, xRow, n, tokens int) {
	dotsNF4[round][tokens](n, size-at%size, size, &out[0], &codes[at/2], &absmax[0], &x[0], uintptr(4*xRow))
}

func avx2F16Rows(dst []float32, dstRow, rows, count int, t kernels.Tensor, at, ahead int) {
	widenRowsF16(rows, count, &dst[0], uintptr(4*dstRow), &t.F16s()[at], uintptr(2*t.Cols), uintptr(2*ahead))
}

func avx2NF4Rows(dst []float32, dstRow, rows, count int, t kernels.Tensor, at int, absmax []float32, ahead int) {
	kernel := nf4RowsF32
	switch t.Quant.Round {
	case kernels.F16:
		kernel = nf4RowsF16
	case kernels.BF16:
		kernel = nf4RowsBF16
	}
	kernel(rows, count/wholeBlock, &dst[0], uintptr(4*dstRow), &t.Host[at/2], uintptr(t.Cols/2), &absmax[0], uintptr(t.Cols/wholeBlock*4), uintptr(ahead/2))
}

func avx2WholeSplit(a whole, x []float32, tokens int) {
	wholeSplit(tokens*a.blocks, &a.words[0], &a.scales[0], &x[0])
}

// wholeTables is about how many tables of scales a thread has at once: they stay in the nearest cache.
const wholeTables = 5

var wholeKernels = [...]func(n, blocks int, out *float32, outRow uintptr, codes, absmax *byte, left int, table *float32, words *int16, wordRow uintptr, scales *float32, scaleRow uintptr){
	nil, wholeDot1, wholeDot2, wholeDot3}

// avx2WholeDots looks the blocks' scales up in tables, one of 256 values for each nested block.
func avx2WholeDots(w *worker, out []float32, outRow int, t kernels.Tensor, row, rows int, a whole, tokens int) {
	q, K := t.Quant, t.Cols
	nested, most := q.NestedAbsmax.F32s(), max(1, wholeTables*kernels.NestedBlock/a.blocks)
	for n := 0; n < rows; n += most {
		block, count := (row+n)*a.blocks, min(most, rows-n)
		first, last := block/kernels.NestedBlock, (block+count*a.blocks-1)/kernels.NestedBlock
		tables := w.scaleTables(last - first + 1)
		for i := range tables {
			nestedTable(&tables[i], &kernels.SignedMap, nested[first+i], q.NestedOffset)
		}
		inTurns(tokens, len(wholeKernels)-1, func(at, each int) {
			wholeKernels[each](count, a.blocks, &out[at*outRow+n], uintptr(4*outRow), &t.Host[(row+n)*K/2], &q.Absmax.Host[block], (first+1)*kernels.NestedBlock-block,
				&tables[0][0], &a.words[at*K], uintptr(2*K), &a.scales[at*a.blocks], uintptr(4*a.blocks))
		})
	}
}

// inTurns runs f for tokens from at on, in as few turns of at most most as they take, and with as many in each.
func inTurns(tokens, most int, f func(at, each int)) {
	turns := (tokens + most - 1) / most
	each := (tokens + turns - 1) / turns
	for at := 0; at < tokens; at += each {
		f(at, min(each, tokens-at))
	}
}

// scaleTables is the worker's room for n tables.
func (w *worker) scaleTables(n int) [][256]float32 {
	if cap(w.tables) < n {
		w.tables = make([][256]float32, n)
	}
	return w.tables[:n]
}

func avx2NF4Blocks(codes []byte, absmax, x []float32, size int) {
	if size == 64 && len(x) == 64*len(absmax) {
		nf4Blocks(len(absmax), unsafe.SliceData(codes), unsafe.SliceData(absmax), unsafe.SliceData(x), &kernels.NF4Thresholds[0])
		return
	}
	for i := range absmax {
		part, to := x[i*size:min(len(x), (i+1)*size)], codes[i*size/2:]
		absmax[i] = maxAbs(len(part), &part[0])
		whole := len(part) &^ 31
		nf4Codes(whole, &to[0], &part[0], &kernels.NF4Thresholds[0], 1/absmax[i])
		plainToNF4(to[whole/2:], part[whole:], 1/absmax[i])
	}
}

func avx2Tile(rows, k int, a []float32, aRow, aCol int, panel, c []float32, cRow int, alpha float32) {
	pa, pb, pc := unsafe.SliceData(a), unsafe.SliceData(panel), unsafe.SliceData(c)
	down, along, next := uintptr(4*aRow), uintptr(4*aCol), uintptr(4*cRow)
	switch rows {
	case 6:
		gemm6(k, pa, down, along, pb, pc, next, alpha)
	case 5:
		gemm5(k, pa, down, along, pb, pc, next, alpha)
	case 4:
		gemm4(k, pa, down, along, pb, pc, next, alpha)
	case 3:
		gemm3(k, pa, down, along, pb, pc, next, alpha)
	case 2:
		gemm2(k, pa, down, along, pb, pc, next, alpha)
	case 1:
		gemm1(k, pa, down, along, pb, pc, next, alpha)
	}
}

func avx2PackRows(panel []float32, t kernels.Tensor, at, stride, k int) {
	dst := unsafe.SliceData(panel)
	switch t.DType {
	case kernels.F32:
		pack16RowsF32(k, dst, &t.F32s()[at], uintptr(4*stride))
	case kernels.F16:
		pack16RowsF16(k, dst, &t.F16s()[at], uintptr(2*stride))
	case kernels.BF16:
		pack16RowsBF16(k, dst, &t.F16s()[at], uintptr(2*stride))
	}
}

func avx2PackColumns(panel []float32, t kernels.Tensor, at, stride, k int) {
	for half := range 2 {
		dst, from := &panel[8*half], at+8*half*stride
		switch t.DType {
		case kernels.F32:
			pack16ColumnsF32(k, dst, &t.F32s()[from], uintptr(4*stride))
		case kernels.F16:
			pack16ColumnsF16(k, dst, &t.F16s()[from], uintptr(2*stride))
		case kernels.BF16:
			pack16ColumnsBF16(k, dst, &t.F16s()[from], uintptr(2*stride))
		}
	}
}

var avx2DotRows = [7]int{0, 4, 4, 4, 3, 2, 2}

type dotKernel[T any] func(n int, out *float32, w *T, wRow uintptr, x *float32, xRow uintptr)

// The kernels by tokens, for one row and for dotRows of them.
var (
	dotsF32 = [7][2]dotKernel[float32]{{}, {dotF321x1, dotF324x1}, {dotF321x2, dotF324x2}, {dotF321x3, dotF324x3},
		{dotF321x4, dotF323x4}, {dotF321x5, dotF322x5}, {dotF321x6, dotF322x6}}
	dotsF16 = [7][2]dotKernel[uint16]{{}, {dotF161x1, dotF164x1}, {dotF161x2, dotF164x2}, {dotF161x3, dotF164x3},
		{dotF161x4, dotF163x4}, {dotF161x5, dotF162x5}, {dotF161x6, dotF162x6}}
)

func avx2Dots(out []float32, w kernels.Tensor, at, stride int, x []float32, xRow, n, rows, tokens int) {
	dotsBy(&dotsF32, &dotsF16, avx2DotRows[tokens], 8, out, w, at, stride, x, xRow, n, rows, tokens)
}

// dotsBy is dots by kernels of one row and of several, for whole vectors of lanes elements.
func dotsBy(wide *[7][2]dotKernel[float32], half *[7][2]dotKernel[uint16], several, lanes int,
	out []float32, w kernels.Tensor, at, stride int, x []float32, xRow, n, rows, tokens int) {
	if rows < several && rows > 1 {
		for r := range rows {
			dotsBy(wide, half, several, lanes, out[r*tokens:], w, at+r*stride, stride, x, xRow, n, 1, tokens)
		}
		return
	}
	kernel := min(rows-1, 1)
	whole := n &^ (lanes - 1)
	if w.DType == kernels.F16 {
		weights := w.F16s()[at:]
		half[tokens][kernel](whole, &out[0], &weights[0], uintptr(2*stride), &x[0], uintptr(4*xRow))
		for i := whole; i < n; i++ {
			for r := range rows {
				v := kernels.F16ToF32(weights[r*stride+i])
				for t := range tokens {
					out[r*tokens+t] += v * x[t*xRow+i]
				}
			}
		}
		return
	}
	weights := w.F32s()[at:]
	wide[tokens][kernel](whole, &out[0], &weights[0], uintptr(4*stride), &x[0], uintptr(4*xRow))
	for i := whole; i < n; i++ {
		for r := range rows {
			for t := range tokens {
				out[r*tokens+t] += weights[r*stride+i] * x[t*xRow+i]
			}
		}
	}
}
