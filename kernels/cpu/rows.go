package cpu

import "quartet/kernels"

// Embed sets out (T,D) = table[ids].
func (b *Backend) Embed(out, table, ids kernels.Tensor) {
	kernels.WantFloat("Embed", "table", table, table.Rows, out.Cols)
	kernels.Want("Embed", "out", out, kernels.F32, ids.Cols, table.Cols)
	kernels.Want("Embed", "ids", ids, kernels.I32, 1, out.Rows)
	o, D := out.F32s(), out.Cols
	rows := ids.I32s()
	b.pool.each(len(rows), grain(D), func(_ *worker, lo, hi int) {
		for t := lo; t < hi; t++ {
			b.load(o[t*D:(t+1)*D], table, int(rows[t])*D)
		}
	})
}

// Scatter sets out[rows[i]] = x[i].
func (b *Backend) Scatter(out, x, rows kernels.Tensor) {
	kernels.Want("Scatter", "x", x, out.DType, x.Rows, out.Cols)
	kernels.Want("Scatter", "rows", rows, kernels.I32, 1, x.Rows)
	at, stride := rows.I32s(), x.DType.Bytes(x.Cols)
	for i, r := range at {
		copy(out.Host[int(r)*stride:][:stride], x.Host[i*stride:][:stride])
	}
}

// Gather sets out[i] = x[rows[i]].
func (b *Backend) Gather(out, x, rows kernels.Tensor) {
	kernels.Want("Gather", "x", x, out.DType, x.Rows, out.Cols)
	kernels.Want("Gather", "rows", rows, kernels.I32, 1, out.Rows)
	at, stride := rows.I32s(), x.DType.Bytes(x.Cols)
	for i, r := range at {
		copy(out.Host[i*stride:][:stride], x.Host[int(r)*stride:][:stride])
	}
}
