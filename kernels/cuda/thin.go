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
		b.thinOver(over)
		return true
	}
	low := thinLow{out: out, x: x, y: y, transY: transY, alpha: alpha, beta: beta}
	switch {
	case low.fits():
		b.thinLow(low)
	case spreads(out, x, y):
		b.thinSpread(beta, thinSpread{out: out, low: x, y: y, transY: transY, alpha: alpha})
	default:
		return false
	}
	return true
}

// thinLow is a product out (T,r) = alpha·drop(x) (T,K)·op(y) + beta·out, y F32.
type thinLow struct {
	out, x, y   kernels.Tensor
	transY      bool
	alpha, beta float32
	drop        kernels.Drop
}

func (l thinLow) fits() bool {
	return l.x.DType != kernels.F32 && l.out.DType == l.x.DType && l.y.DType == kernels.F32 &&
		l.out.Cols <= thinMost && l.x.Cols%8 == 0 && l.x.Addr%16 == 0
}

// thinLow does one product, or two of the same tokens and rank at once.
func (b *Backend) thinLow(jobs ...thinLow) {
	first, last := jobs[0], jobs[len(jobs)-1]
	T, r := first.out.Rows, first.out.Cols
	eights, tiles, block := thinEights(r), 1, 512
	if T > 2048 {
		tiles = 4
	}
	if eights > 2 {
		block = 256
	}
	args := []uint64{number(T), number(r)}
	for _, j := range [2]thinLow{first, last} {
		rank, k := 1, r
		if j.transY {
			rank, k = j.x.Cols, 1
		}
		args = append(args, j.out.Addr, j.x.Addr, j.y.Addr, number(j.x.Cols), number(rank), number(k), real32(j.alpha), real32(j.beta))
	}
	b.run(fmt.Sprintf("thin_low_%d_%d%s", eights, tiles, suffix(first.x.DType)), [3]int{ceil(T, 8*tiles), 1, len(jobs)}, block, 0,
		append(args, masks(T, first.drop, last.drop)...)...)
}

// spreads reports whether thinSpread does out (T,N) = x (T,r)·op(y).
func spreads(out, x, y kernels.Tensor) bool {
	return x.DType != kernels.F32 && out.DType == x.DType && y.DType == kernels.F32 && x.Cols <= thinMost && x.Cols%2 == 0 && x.Addr%4 == 0
}

// thinSpread is a product out (T,N) = alpha·drop(low (T,r)·op(y)), y F32.
type thinSpread struct {
	out, low, y kernels.Tensor
	transY      bool
	alpha       float32
	drop        kernels.Drop
}

// thinSpread adds one product to beta·out, or two of the same tokens and rank at once, whose outputs may be one.
func (b *Backend) thinSpread(beta float32, jobs ...thinSpread) {
	const columns = 256 // of a block
	first, last := jobs[0], jobs[len(jobs)-1]
	T, r, outputs := first.out.Rows, first.low.Cols, len(jobs)
	kernel, tokens := "thin_spread_1", 32
	if r > 16 {
		kernel = "thin_spread_4"
	}
	if len(jobs) == 2 && first.out.Addr == last.out.Addr {
		if kernel, outputs = "thin_spread_sum", 1; r > 16 { // more than a thread can hold
			b.thinSpread(beta, first)
			b.thinSpread(1, last)
			return
		}
	}
	for ceil(T, tokens) > 128 { // a block keeps op(y) for its tokens
		tokens *= 2
	}
	args, widest := []uint64{number(T), number(r), number(tokens), real32(beta)}, 0
	for _, j := range [2]thinSpread{first, last} {
		N, rank, column := j.out.Cols, j.out.Cols, 1
		if j.transY {
			rank, column = 1, r
		}
		widest = max(widest, N)
		args = append(args, j.out.Addr, j.low.Addr, j.y.Addr, number(N), number(rank), number(column), real32(j.alpha))
	}
	b.run(kernel+suffix(first.out.DType), [3]int{ceil(widest, columns), ceil(T, tokens), outputs}, 256, 0,
		append(args, masks(T, first.drop, last.drop)...)...)
}

// masks is the arguments that stand for the masks of two products.
func masks(T int, p, q kernels.Drop) []uint64 {
	return append(mask("thin product", p, T), mask("thin product", q, T)...)
}

// thinOver is a product over tokens: out (r,N) = alpha·low (T,r)ᵀ·drop(x) (T,N) + beta·out, or with columns its transpose (N,r); out is
// F32.
type thinOver struct {
	out, low, x kernels.Tensor
	columns     bool
	alpha, beta float32
	drop        kernels.Drop
}

func (o thinOver) fits() bool {
	return o.x.DType != kernels.F32 && o.low.DType == o.x.DType && o.out.DType == kernels.F32 &&
		o.low.Cols <= thinMost && o.x.Cols%4 == 0 && o.x.Addr%8 == 0 && o.x.Rows > 0
}

// thinOver does up to four products over the same tokens and of the same rank at once, of which the first two may have dropout.
func (b *Backend) thinOver(jobs ...thinOver) {
	first, widest := jobs[0], 0
	T, r := first.low.Rows, first.low.Cols
	args := []uint64{number(T), number(r)}
	for i := range 4 {
		j := jobs[min(i, len(jobs)-1)]
		rank, column := j.x.Cols, 1
		if j.columns {
			rank, column = 1, r
		}
		widest = max(widest, j.x.Cols)
		args = append(args, j.out.Addr, j.low.Addr, j.x.Addr, number(j.x.Cols), number(rank), number(column), real32(j.alpha), real32(j.beta))
	}
	b.run(fmt.Sprintf("thin_over_%d%s", thinEights(r), suffix(first.x.DType)), [3]int{ceil(widest, 32), 1, len(jobs)}, 512, 0,
		append(args, masks(T, first.drop, jobs[min(1, len(jobs)-1)].drop)...)...)
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
