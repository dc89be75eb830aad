package cpu

import "quartet/kernels"

// product is c (rows,cols) += alpha·a (rows,inner)·right. Elements of a lie aRow apart down and aCol along. right is
// (inner,cols) as it lies in memory if alongRows, and then not NF4; otherwise its transpose (cols,inner) does. start, if any, first sets
// the part of a row of c that begins at a column.
type product struct {
	c          []float32
	rows, cols int
	a          []float32
	inner      int
	aRow, aCol int
	right      kernels.Tensor
	alongRows  bool
	alpha      float32
	start      func(c []float32, col int)
}

// innerBlock is how much of the inner dimension is taken at once: a panel of it stays in the nearest caches. The sums'
// order, and so the result, depends on it and on nothing else. groupPanels bounds the panels that a thread takes at once.
const (
	innerBlock  = 256
	groupPanels = 8
)

// multiply shares a product among the threads by groups of panels and, where these are few, by rows.
func (b *Backend) multiply(p product) {
	threads := len(b.pool.workers)
	panelWidth, tileRows := b.loops.tileColumns, b.loops.tileRows
	panels := (p.cols + panelWidth - 1) / panelWidth
	group := max(1, min(groupPanels, panels/(4*threads)))
	groups := (panels + group - 1) / group
	chunks := 1
	if groups < 4*threads {
		chunks = max(1, min(4*threads/max(1, groups), p.rows/(4*tileRows)))
	}
	chunk := ((p.rows+chunks-1)/chunks + tileRows - 1) / tileRows * tileRows
	cost := p.rows * p.cols * p.inner / max(1, groups*chunks) / 8
	b.pool.each(groups*chunks, grain(cost), func(w *worker, lo, hi int) {
		for item := lo; item < hi; item++ {
			panel, row := item/chunks*group, item%chunks*chunk
			b.multiplyPart(w, &p, panel*panelWidth, min(p.cols, (panel+group)*panelWidth), row, min(p.rows, row+chunk))
		}
	})
}

// multiplyPart computes the columns [col,end) of the rows [top,bottom).
func (b *Backend) multiplyPart(w *worker, p *product, col, end, top, bottom int) {
	if p.start != nil {
		for r := top; r < bottom; r++ {
			p.start(p.c[r*p.cols+col:r*p.cols+end], col)
		}
	}
	panelWidth, tileRows := b.loops.tileColumns, b.loops.tileRows
	panel, edge := w.floats(0, innerBlock*panelWidth), w.floats(2, tileRows*panelWidth)
	for k := 0; k < p.inner; k += innerBlock {
		count := min(innerBlock, p.inner-k)
		right, at, stride := p.right, 0, p.right.Cols
		if at = col*stride + k; p.alongRows {
			at = k*stride + col
		}
		for j := col; j < end; j += panelWidth {
			width := min(panelWidth, end-j)
			if p.alongRows {
				b.panelAlong(panel, right, at+j-col, stride, count, width)
			} else {
				b.panelAcross(w, panel, right, at+(j-col)*stride, stride, count, width)
			}
			for r := top; r < bottom; r += tileRows {
				rows := min(tileRows, bottom-r)
				a := p.a[r*p.aRow+k*p.aCol:]
				if width == panelWidth {
					b.loops.tile(rows, count, a, p.aRow, p.aCol, panel, p.c[r*p.cols+j:], p.cols, p.alpha)
					continue
				}
				clear(edge)
				b.loops.tile(rows, count, a, p.aRow, p.aCol, panel, edge, panelWidth, p.alpha)
				for i := range rows {
					to := p.c[(r+i)*p.cols+j:][:width]
					for n := range to {
						to[n] += edge[i*panelWidth+n]
					}
				}
			}
		}
	}
}

// panelAlong packs k rows of t, width columns of each, zeros behind them.
func (b *Backend) panelAlong(panel []float32, t kernels.Tensor, at, stride, k, width int) {
	panelWidth := b.loops.tileColumns
	if width == panelWidth {
		b.loops.packRows(panel, t, at, stride, k)
		return
	}
	for i := range k {
		row := panel[i*panelWidth:][:panelWidth]
		b.load(row[:width], t, at+i*stride)
		clear(row[width:])
	}
}

// panelAcross packs k elements of width rows of t, zeros beside them. What can't be packed where it lies is widened first.
func (b *Backend) panelAcross(w *worker, panel []float32, t kernels.Tensor, at, stride, k, width int) {
	panelWidth := b.loops.tileColumns
	if width == panelWidth && k%8 == 0 && t.DType != kernels.NF4 {
		b.loops.packColumns(panel, t, at, stride, k)
		return
	}
	padded := (k + 7) &^ 7
	wide := w.floats(1, panelWidth*padded)
	if padded > k || width < panelWidth {
		clear(wide)
	}
	for i := range width {
		b.load(wide[i*padded:][:k], t, at+i*stride)
	}
	b.loops.packColumns(panel, kernels.HostTensor(kernels.F32, panelWidth, padded, kernels.AsBytes(wide)), 0, padded, padded)
}
