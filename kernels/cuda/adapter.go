package cuda

import (
	"slices"

	"quartet/kernels"
)

var _ kernels.Fused = (*Backend)(nil) // kernels.Fuse finds it

// LowRank sets Out (T,N) += Scale·(drop(x) (T,K)·Aᵀ)·Bᵀ for each adapter. In 16 bits the masked x is made where it is used, and two
// adapters take two launches.
func (b *Backend) LowRank(x, room kernels.Tensor, adapters ...kernels.LowRank) {
	for pair := range slices.Chunk(adapters, 2) {
		var lows []thinLow
		var spread []thinSpread
		thin := true
		for _, l := range pair {
			wantLowRank("LowRank", l.Out, x, l, pair[0].A.Rows)
			low := thinLow{out: l.Low, x: x, y: l.A, transY: true, alpha: 1, drop: l.Drop}
			thin = thin && low.fits() && spreads(l.Out, l.Low, l.B)
			lows = append(lows, low)
			spread = append(spread, thinSpread{out: l.Out, low: l.Low, y: l.B, transY: true, alpha: l.Scale})
		}
		switch {
		case !thin:
			kernels.Plain(b).LowRank(x, room, pair...)
		case x.Rows > 0:
			b.thinLow(lows...)
			b.thinSpread(1, spread...)
		}
	}
}

// LowRankBackward adds to dx (T,K) and to each adapter's GradA (r,K) and GradB (N,r): in 16 bits by three launches for two adapters.
func (b *Backend) LowRankBackward(dx, x, room, dxRoom kernels.Tensor, adapters ...kernels.LowRankGradient) {
	const op = "LowRankBackward"
	if !dx.IsZero() {
		kernels.Want(op, "dx", dx, x.DType, x.Rows, x.Cols)
	}
	for pair := range slices.Chunk(adapters, 2) {
		var lows []thinLow
		var inner, outer []thinOver
		var spread []thinSpread
		thin := true
		for _, l := range pair {
			wantLowRank(op, l.DOut, x, l.LowRank, pair[0].A.Rows)
			kernels.Want(op, "DLow", l.DLow, x.DType, x.Rows, l.A.Rows)
			kernels.Want(op, "GradA", l.GradA, kernels.F32, l.A.Rows, l.A.Cols)
			kernels.Want(op, "GradB", l.GradB, kernels.F32, l.B.Rows, l.B.Cols)
			low := thinLow{out: l.DLow, x: l.DOut, y: l.B, alpha: l.Scale}
			a := thinOver{out: l.GradA, low: l.DLow, x: x, alpha: 1, beta: 1, drop: l.Drop}
			c := thinOver{out: l.GradB, low: l.Low, x: l.DOut, columns: true, alpha: l.Scale, beta: 1}
			thin = thin && low.fits() && a.fits() && c.fits() && (dx.IsZero() || spreads(dx, l.DLow, l.A))
			lows, inner, outer = append(lows, low), append(inner, a), append(outer, c)
			spread = append(spread, thinSpread{out: dx, low: l.DLow, y: l.A, alpha: 1, drop: l.Drop})
		}
		if !thin {
			kernels.Plain(b).LowRankBackward(dx, x, room, dxRoom, pair...)
			continue
		}
		b.thinLow(lows...)
		b.thinOver(append(inner, outer...)...)
		if !dx.IsZero() {
			b.thinSpread(1, spread...)
		}
	}
}

func wantLowRank(op string, out, x kernels.Tensor, l kernels.LowRank, rank int) {
	kernels.WantFloat(op, "A", l.A, rank, x.Cols)
	kernels.WantFloat(op, "B", l.B, out.Cols, rank)
	kernels.Want(op, "the output", out, x.DType, x.Rows, out.Cols)
	kernels.Want(op, "Low", l.Low, x.DType, x.Rows, rank)
}
