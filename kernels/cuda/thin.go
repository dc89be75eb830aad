package cuda

import (
	"fmt"

	"quartet/kernels"
)

// thinMost is the most columns that one side of a product may have for thin.cu.
const thinMost = 64

// MatMul sets out = alpha·op(x)·op(y) + beta·out, where op transposes if its flag is set.
func (b *Backend) MatMul(out, x, y kernels.Tensor, transX, transY bool, alpha, beta float32) {
	const op = "MatMul"
	m, k := x.Rows, x.Cols
	if transX {
		m, k = k, m
	}
	rows, cols := k, out.Cols
	if transY {
		rows, cols = cols, rows
	}
	kernels.WantFloat(op, "x", x, x.Rows, x.Cols)
	kernels.WantFloat(op, "y", y, rows, cols)
	kernels.WantFloat(op, "out", out, m, out.Cols)
	if out.Len() > 0 && !b.thin(out, x, y, transX, transY, alpha, beta) {
		b.product(out, x, y, transX, transY, alpha, beta, kernels.Tensor{})
	}
}

// thin does MatMul where it is one of LoRA's products in 16 bits; otherwise it does nothing and is false.
func (b *Backend) thin(out, x, y kernels.Tensor, transX, transY bool, alpha, beta float32) bool {
	if x.DType == kernels.F32 || x.Len() == 0 {
		return false
	}
	if transX {
		over := thinOver{out: out, low: x, x: y, alpha: alpha, beta: beta}
		if x.Cols > thinMost {
			over = thinOver{out: out, low: y, x: x, columns: true, alpha: alpha, beta: beta}
		}
		if transY || !over.fits() {
			return false
		}
		b.thinOver(kernels.Drop{}, over)
		return true
	}
	low := thinLow{out: out, x: x, y: y, transY: transY, alpha: alpha, beta: beta}
	switch {
	case low.fits():
		b.thinLow(kernels.Drop{}, low)
	case spreads(out, x, y):
		b.thinSpread(out, x, y, transY, alpha, beta, kernels.Drop{})
	default:
		return false
	}
	return true
}

// thinLow is a product out (T,r) = alpha·x (T,K)·op(y) + beta·out, y F32.
type thinLow struct {
	out, x, y   kernels.Tensor
	transY      bool
	alpha, beta float32
}

func (l thinLow) fits() bool {
	return l.x.DType != kernels.F32 && l.out.DType == l.x.DType && l.y.DType == kernels.F32 &&
		l.out.Cols <= thinMost && l.x.Cols%8 == 0 && l.x.Addr%16 == 0
}

// thinLow does one product, or two of the same tokens and rank at once; drop belongs to the first one's x.
func (b *Backend) thinLow(drop kernels.Drop, jobs ...thinLow) {
	first := jobs[0]
	T, r := first.out.Rows, first.out.Cols
	eights, tiles, block := thinEights(r), 1, 512
	if T > 2048 {
		tiles = 4
	}
	if eights > 2 {
		block = 256
	}
	args := []uint64{number(T), number(r)}
	for _, j := range [2]thinLow{first, jobs[len(jobs)-1]} {
		rank, k := 1, r
		if j.transY {
			rank, k = j.x.Cols, 1
		}
		args = append(args, j.out.Addr, j.x.Addr, j.y.Addr, number(j.x.Cols), number(rank), number(k), real32(j.alpha), real32(j.beta))
	}
	b.run(fmt.Sprintf("thin_low_%d_%d%s", eights, tiles, suffix(first.x.DType)), [3]int{ceil(T, 8*tiles), 1, len(jobs)}, block, 0,
		append(args, mask("thin product", drop, T)...)...)
}

// spreads reports whether thinSpread does out (T,N) = x (T,r)·op(y).
func spreads(out, x, y kernels.Tensor) bool {
	return x.DType != kernels.F32 && out.DType == x.DType && y.DType == kernels.F32 && x.Cols <= thinMost && x.Cols%2 == 0 && x.Addr%4 == 0
}

// thinSpread sets out (T,N) = alpha·drop(low (T,r)·op(y)) + beta·out, y F32.
func (b *Backend) thinSpread(out, low, y kernels.Tensor, transY bool, alpha, beta float32, drop kernels.Drop) {
	T, N, r := out.Rows, out.Cols, low.Cols
	rank, column := N, 1
	if transY {
		rank, column = 1, r
	}
	const columns = 256 // of a block
	sixteens, tokens := 1, 32
	if r > 16 {
		sixteens = 4
	}
	for ceil(T, tokens) > 128 { // a block keeps op(y) for its tokens
		tokens *= 2
	}
	b.run(fmt.Sprintf("thin_spread_%d%s", sixteens, suffix(out.DType)), [3]int{ceil(N, columns), ceil(T, tokens), 1}, 256, 0,
		append([]uint64{out.Addr, low.Addr, y.Addr, number(T), number(N), number(r), number(rank), number(column), real32(alpha), real32(beta), number(tokens)},
			mask("thin product", drop, T)...)...)
}

// thinOver is a product over tokens: out (r,N) = alpha·low (T,r)ᵀ·x (T,N) + beta·out, or with columns its transpose (N,r); out is F32.
type thinOver struct {
	out, low, x kernels.Tensor
	columns     bool
	alpha, beta float32
}

func (o thinOver) fits() bool {
	return o.x.DType != kernels.F32 && o.low.DType == o.x.DType && o.out.DType == kernels.F32 &&
		o.low.Cols <= thinMost && o.x.Cols%4 == 0 && o.x.Addr%8 == 0 && o.x.Rows > 0
}

// thinOver does one product over tokens, or two of the same tokens and rank at once; drop belongs to the first one's x.
func (b *Backend) thinOver(drop kernels.Drop, jobs ...thinOver) {
	first, widest := jobs[0], 0
	T, r := first.low.Rows, first.low.Cols
	args := []uint64{number(T), number(r)}
	for _, j := range [2]thinOver{first, jobs[len(jobs)-1]} {
		rank, column := j.x.Cols, 1
		if j.columns {
			rank, column = 1, r
		}
		widest = max(widest, j.x.Cols)
		args = append(args, j.out.Addr, j.low.Addr, j.x.Addr, number(j.x.Cols), number(rank), number(column), real32(j.alpha), real32(j.beta))
	}
	b.run(fmt.Sprintf("thin_over_%d%s", thinEights(r), suffix(first.x.DType)), [3]int{ceil(widest, 32), 1, len(jobs)}, 512, 0,
		append(args, mask("thin product", drop, T)...)...)
}

// thinEights is for how many runs of eight ranks a kernel is made that does r: 1, 2 or 8.
func thinEights(r int) int {
	switch {
	case r <= 8:
		return 1
	case r <= 16:
		return 2
	}
	return 8
}
