package cpu

import "quartet/kernels"

// ErrorNF4 is the sum of the squares of what quantising moved weights w by, to x of the same shape, and that of w's own. It
// is what Copy, DequantizeNF4, Add and SumSquares make of them, without whole matrices in between.
func (b *Backend) ErrorNF4(x, w kernels.Tensor) (moved, whole float64) {
	kernels.WantNF4("ErrorNF4", "x", x)
	kernels.WantFloat("ErrorNF4", "w", w, x.Rows, x.Cols)
	const part = 1 << 12 // elements added up at once: in the same order however many threads there are
	n := x.Len()
	sums := make([][2]float64, (n+part-1)/part)
	b.pool.each(len(sums), 4, func(worker *worker, lo, hi int) {
		for i := lo; i < hi; i++ {
			from, to := i*part, min(n, (i+1)*part)
			own, quantised := worker.floats(0, part)[:to-from], worker.floats(1, part)[:to-from]
			b.load(own, w, from)
			b.loadNF4(quantised, x, from)
			sums[i][1] = b.loops.squares(own)
			b.loops.multiply(quantised, quantised, -1)
			b.loops.add(own, own, quantised)
			sums[i][0] = b.loops.squares(own)
		}
	})
	for _, s := range sums {
		moved, whole = moved+s[0], whole+s[1]
	}
	return moved, whole
}
