package cpu

import (
	"fmt"

	"quartet/kernels"
)

// Rotary rotates the first h.Rotary elements of each head of x (T, heads·h.Dim) in place, or back.
func (b *Backend) Rotary(x, positions, table kernels.Tensor, h kernels.Heads, inverse bool) {
	T, D, R := x.Rows, x.Cols, h.Rotary
	kernels.Want("Rotary", "x", x, kernels.F32, T, D)
	kernels.Want("Rotary", "positions", positions, kernels.I32, 1, T)
	kernels.Want("Rotary", "table", table, kernels.F32, table.Rows, R)
	if h.Dim <= 0 || D%h.Dim != 0 || R%2 != 0 || R > h.Dim {
		panic(fmt.Sprintf("cpu: Rotary: %v for heads of %d, %d of them rotated", x, h.Dim, R))
	}
	xs, at, angles := x.F32s(), positions.I32s(), table.F32s()
	b.pool.each(T, grain(4*D), func(_ *worker, lo, hi int) {
		for t := lo; t < hi; t++ {
			row := angles[int(at[t])*R:][:R]
			cos, sin := row[:R/2], row[R/2:]
			for head := t * D; head < (t+1)*D; head += h.Dim {
				first, second := xs[head:head+R/2], xs[head+R/2:head+R]
				for i, c := range cos {
					s := sin[i]
					if inverse {
						s = -s
					}
					a, b := first[i], second[i]
					first[i], second[i] = a*c-b*s, b*c+a*s
				}
			}
		}
	})
}
