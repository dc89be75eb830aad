package cuda

import (
	"strconv"

	"quartet/kernels"
)

// rows queues a kernel that does a row a block, `units` of work each.
func (b *Backend) rows(kernel string, rows, units int, args ...uint64) {
	if rows > 0 && units > 0 {
		b.run(kernel, [3]int{rows, 1, 1}, rowThreads(units, 512), 0, args...)
	}
}

// rowThreads is how many threads share a row's units of work: whole warps, at most limit, as evenly loaded as can be.
func rowThreads(units, limit int) int {
	each := ceil(units, limit)
	return 32 * ceil(ceil(units, each), 32)
}

// Embed sets out (T,D) = table[ids].
func (b *Backend) Embed(out, table, ids kernels.Tensor) {
	kernels.WantFloat("Embed", "table", table, table.Rows, out.Cols)
	kernels.WantFloat("Embed", "out", out, ids.Cols, table.Cols)
	kernels.Want("Embed", "ids", ids, kernels.I32, 1, out.Rows)
	b.rows("embed"+suffix(out.DType)+suffix(table.DType), out.Rows, ceil(out.Cols, 8), out.Addr, table.Addr, ids.Addr, number(out.Cols))
}

// Scatter sets out[rows[i]] = x[i].
func (b *Backend) Scatter(out, x, rows kernels.Tensor) {
	kernels.Want("Scatter", "x", x, out.DType, x.Rows, out.Cols)
	kernels.Want("Scatter", "rows", rows, kernels.I32, 1, x.Rows)
	b.move("scatter", out, x, rows)
}

// Gather sets out[i] = x[rows[i]].
func (b *Backend) Gather(out, x, rows kernels.Tensor) {
	kernels.Want("Gather", "x", x, out.DType, x.Rows, out.Cols)
	kernels.Want("Gather", "rows", rows, kernels.I32, 1, out.Rows)
	b.move("gather", out, x, rows)
}

// move copies rows in the widest units that divide them and their addresses.
func (b *Backend) move(kernel string, out, x, rows kernels.Tensor) {
	stride, unit := x.DType.Bytes(x.Cols), 16
	for (uint64(stride)|out.Addr|x.Addr)%uint64(unit) != 0 {
		unit = min(unit/2, 4)
	}
	b.rows(kernel+"_"+strconv.Itoa(unit), rows.Cols, stride/unit, out.Addr, x.Addr, rows.Addr, number(stride/unit))
}
