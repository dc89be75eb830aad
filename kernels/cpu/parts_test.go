package cpu

import (
	"fmt"
	"math"
	"testing"

	"quartet/kernels"
)

// TestParts holds products of parts, by tiles in plain Go for processors without them, against those of float32.
func TestParts(t *testing.T) {
	want, b := New(On(Plain), Threads(2)), New(On(Plain), Threads(2))
	l := plainLoops
	l.tileColumns, l.parts = partTile, &plainParts
	l.packColumns = func(panel []float32, t kernels.Tensor, at, stride, k int) {
		row := make([]float32, k)
		for j := range partTile {
			widen(&plainLoops, row, t, at+j*stride)
			for i, v := range row {
				panel[i*partTile+j] = v
			}
		}
	}
	b.loops = &l
	near := func(name string, got, want kernels.Tensor) {
		var off, top float64
		for i, v := range want.F32s() {
			off = max(off, math.Abs(float64(v-got.F32s()[i])))
			top = max(top, math.Abs(float64(v)))
		}
		if !(off <= 2e-6*top) {
			t.Errorf("%s: off by %.3g of %.3g", name, off, top)
		}
	}
	for _, d := range []kernels.DType{kernels.F16, kernels.BF16, kernels.NF4} {
		for _, s := range [][3]int{{22, 1088, 490}, {43, 1056, 544}} {
			T, K, N := s[0], s[1], s[2]
			w := operand(t, b, d, N, K)
			if x, out, exact := operand(t, b, kernels.F32, T, K), operand(t, b, kernels.F32, T, N), operand(t, b, kernels.F32, T, N); b.linearParts(out, x, w, nil) {
				want.Linear(exact, x, w, kernels.Tensor{})
				near(fmt.Sprintf("Linear %v %v", d, s), out, exact)
			} else if K%64 == 0 {
				t.Errorf("Linear %v %v was not made of parts", d, s)
			}
			if dout, dx, exact := operand(t, b, kernels.F32, T, N), operand(t, b, kernels.F32, T, K), operand(t, b, kernels.F32, T, K); b.linearBackwardParts(dx, dout, w) {
				want.LinearBackward(exact, dout, w)
				near(fmt.Sprintf("LinearBackward %v %v", d, s), dx, exact)
			} else if N%32 == 0 {
				t.Errorf("LinearBackward %v %v was not made of parts", d, s)
			}
		}
	}
}

// upper are the upper bits of v, as a bfloat16, and what they leave of it.
func upper(v float32) (uint16, float32) {
	bits := math.Float32bits(v) &^ 0xffff
	return uint16(bits >> 16), v - math.Float32frombits(bits)
}

// splitAt writes the parts of element i of 32 that make a step, part words apart, to pairs that lie pair words apart.
func splitAt(dst []uint16, i, pair, parts, part int, v float32) {
	at := i%16*pair + i/16
	for p := range parts {
		dst[p*part+at], v = upper(v)
	}
}

func partAt(words []uint16, i, pair int) float32 { return kernels.BF16ToF32(words[i%16*pair+i/16]) }

// addParts adds the products of rows and panels, of which pairs of parts are wanted. Rows and panels lie row and panel words apart;
// panels are of so many parts.
func addParts(sums []float32, sumsRow, blocks, panels, count int, rows []uint16, row int, columns []uint16, panel, of int, pairs [][2]int) {
	for r := range 32 * blocks {
		for c := range 32 * panels {
			var sum float32
			for k := range count {
				a, b := rows[r*row+k/32*32:], columns[c/32*panel+k/32*1024*of+c%32/16*512+c%16*2:]
				for _, p := range pairs {
					sum += partAt(a[p[0]*innerBlock:], k%32, 2) * partAt(b[p[1]*1024:], k%32, 32)
				}
			}
			sums[r*sumsRow+c] += sum
		}
	}
}

var plainParts = parts{
	rows: func(dst []uint16, rows, count int, t kernels.Tensor, at int, absmax []float32, _ int) {
		wide := make([]float32, count)
		for r := range rows {
			if t.DType == kernels.NF4 {
				plainFromNF4(wide, wholeBlock, t.Host, at+r*t.Cols, absmax[r*t.Cols/wholeBlock:], t.Quant.Round)
			} else {
				widen(&plainLoops, wide, t, at+r*t.Cols)
			}
			for i, v := range wide {
				splitAt(dst[r*partRow+i/32*32:], i%32, 2, 2, innerBlock, v)
			}
		}
	},
	panel: func(dst []uint16, panel []float32) {
		for i, v := range panel {
			k, column := i/32, i%32
			splitAt(dst[k/32*3072+column/16*512+column%16*2:], k%32, 32, 3, 1024, v)
		}
	},
	product: func(sums []float32, blocks, panels, count int, rows, tokens []uint16, panel int) {
		addParts(sums, 32*panels, blocks, panels, count, rows, partRow, tokens, panel, 3, [][2]int{{0, 0}, {0, 1}, {0, 2}, {1, 0}, {1, 1}})
	},
	rowsThree: func(dst []uint16, rows, count int, x []float32, stride int) {
		for r := range rows {
			for i, v := range x[r*stride:][:count] {
				splitAt(dst[r*partRowThree+i/32*32:], i%32, 2, 3, innerBlock, v)
			}
		}
	},
	columns: func(dst []uint16, count int, t kernels.Tensor, at, _ int) {
		var wide [32]float32
		for k := range count {
			widen(&plainLoops, wide[:], t, at+k*t.Cols)
			for c, v := range wide {
				splitAt(dst[k/32*2048+c/16*512+c%16*2:], k%32, 32, 2, 1024, v)
			}
		}
	},
	productBack: func(sums []float32, sumsRow, blocks, panels, count int, rows, columns []uint16) {
		addParts(sums, sumsRow, blocks, panels, count, rows, partRowThree, columns, columnWords, 2, [][2]int{{0, 0}, {1, 0}, {2, 0}, {0, 1}, {1, 1}})
	},
}
