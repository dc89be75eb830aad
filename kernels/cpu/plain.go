package cpu

import (
	"math"

	"quartet/kernels"
)

// plainColumns are a tile's.
const plainColumns = 16

// plainLoops are in Go alone.
var plainLoops = loops{
	dotRows: [7]int{0, 4, 4, 4, 3, 2, 2}, tileRows: 6, tileColumns: plainColumns,
	fromF16: plainFromF16, fromBF16: plainFromBF16, toF16: plainToF16,
	fromNF4: plainFromNF4, nestedScales: plainNestedScales, largest: plainLargest, nf4Blocks: plainNF4Blocks,
	tile: plainTile, packRows: plainPackRows, packColumns: plainPackColumns, dots: plainDots,
	add: plainAdd, multiply: plainMultiply, gelu: plainGelu, geluSlope: plainGeluSlope,
	sum: plainSum, squares: plainSquares, sumSquares: plainSumSquares, normalise: plainNormalise, normSums: plainNormSums, normSlope: plainNormSlope,
	top: plainTop, expSum: plainExpSum,
	scores: plainScores, weigh: plainWeigh, outer: plainOuter, scoreSlope: plainScoreSlope,
	dropout: plainDropout,
}

func plainFromF16(dst []float32, src []uint16) {
	src = src[:len(dst)]
	for i, h := range src {
		dst[i] = kernels.F16ToF32(h)
	}
}

func plainFromBF16(dst []float32, src []uint16) {
	src = src[:len(dst)]
	for i, h := range src {
		dst[i] = kernels.BF16ToF32(h)
	}
}

func plainToF16(dst []uint16, src []float32) {
	src = src[:len(dst)]
	for i, v := range src {
		dst[i] = kernels.F32ToF16(v)
	}
}

// plainFromNF4 scales and rounds the codebook once for each block.
func plainFromNF4(dst []float32, size int, codes []byte, at int, absmax []float32, round kernels.DType) {
	for len(dst) > 0 {
		var values [16]float32
		for i, v := range kernels.NF4Values {
			values[i] = rounded(float32(v*absmax[0]), round)
		}
		n := min(len(dst), size-at%size)
		for i := range n {
			e := at + i
			dst[i] = values[codes[e/2]>>(4*(^e&1))&15]
		}
		dst, at, absmax = dst[n:], at+n, absmax[1:]
	}
}

func plainNestedScales(dst []float32, codes []byte, scale, offset float32) {
	for i, code := range codes[:len(dst)] {
		dst[i] = float32(kernels.SignedMap[code]*scale) + offset
	}
}

func rounded(x float32, d kernels.DType) float32 {
	switch d {
	case kernels.F16:
		return kernels.F16ToF32(kernels.F32ToF16(x))
	case kernels.BF16:
		return kernels.BF16ToF32(kernels.F32ToBF16(x))
	}
	return x
}

func plainLargest(x []float32) float32 {
	var top float32
	for _, v := range x {
		if a := abs(v); a > top {
			top = a
		}
	}
	return top
}

func abs(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) }

func plainNF4Blocks(codes []byte, absmax, x []float32, size int) {
	for i := range absmax {
		part := x[i*size : min(len(x), (i+1)*size)]
		absmax[i] = plainLargest(part)
		plainToNF4(codes[i*size/2:], part, 1/absmax[i])
	}
}

// plainToNF4 packs the codes of x·scale; the padding of an odd length is a quantised 0.
func plainToNF4(codes []byte, x []float32, scale float32) {
	for i := range (len(x) + 1) / 2 {
		low := byte(7)
		if 2*i+1 < len(x) {
			low = kernels.NF4Code(float32(x[2*i+1] * scale))
		}
		codes[i] = kernels.NF4Code(float32(x[2*i]*scale))<<4 | low
	}
}

func plainTile(rows, k int, a []float32, aRow, aCol int, panel, c []float32, cRow int, alpha float32) {
	for r := range rows {
		var sum [plainColumns]float32
		for i := range k {
			x, row := a[r*aRow+i*aCol], panel[i*plainColumns:][:plainColumns]
			for j, y := range row {
				sum[j] += x * y
			}
		}
		to := c[r*cRow:][:plainColumns]
		for j, s := range sum {
			to[j] += alpha * s
		}
	}
}

// plainConversions are what packing needs of plainLoops, which refers to it.
var plainConversions = loops{fromF16: plainFromF16, fromBF16: plainFromBF16}

func plainPackRows(panel []float32, t kernels.Tensor, at, stride, k int) {
	for i := range k {
		widen(&plainConversions, panel[i*plainColumns:][:plainColumns], t, at+i*stride)
	}
}

func plainPackColumns(panel []float32, t kernels.Tensor, at, stride, k int) {
	var part [64]float32
	for j := range plainColumns {
		for from := 0; from < k; from += len(part) {
			row := part[:min(len(part), k-from)]
			widen(&plainConversions, row, t, at+j*stride+from)
			for i, v := range row {
				panel[(from+i)*plainColumns+j] = v
			}
		}
	}
}

func plainDots(out []float32, w kernels.Tensor, at, stride int, x []float32, xRow, n, rows, tokens int) {
	weights := w.F32s()
	for r := range rows {
		row := weights[at+r*stride:][:n]
		for t := range tokens {
			out[r*tokens+t] = plainDot(row, x[t*xRow:])
		}
	}
}

func plainDot(x, y []float32) float32 {
	y = y[:len(x)]
	var s0, s1, s2, s3 float32
	i := 0
	for ; i+4 <= len(x); i += 4 {
		s0 += x[i] * y[i]
		s1 += x[i+1] * y[i+1]
		s2 += x[i+2] * y[i+2]
		s3 += x[i+3] * y[i+3]
	}
	for ; i < len(x); i++ {
		s0 += x[i] * y[i]
	}
	return s0 + s1 + (s2 + s3)
}

func plainAdd(out, x, y []float32) {
	x, y = x[:len(out)], y[:len(out)]
	for i := range out {
		out[i] = x[i] + y[i]
	}
}

func plainMultiply(out, x []float32, s float32) {
	x = x[:len(out)]
	for i, v := range x {
		out[i] = s * v
	}
}

const (
	geluScale = 0.7978845608028654 // √(2/π)
	geluCubic = 0.044715
)

func plainGelu(out, x []float32) {
	for i, v := range x[:len(out)] {
		v := float64(v)
		out[i] = float32(0.5 * v * (1 + math.Tanh(geluScale*(v+geluCubic*v*v*v))))
	}
}

func plainGeluSlope(out, dout, x []float32) {
	for i, v := range x[:len(out)] {
		v := float64(v)
		t := math.Tanh(geluScale * (v + geluCubic*v*v*v))
		slope := 0.5*(1+t) + 0.5*v*(1-t*t)*geluScale*(1+3*geluCubic*v*v)
		out[i] = dout[i] * float32(slope)
	}
}

func plainSum(x []float32) float32 {
	var sum float64
	for _, v := range x {
		sum += float64(v)
	}
	return float32(sum)
}

func plainSquares(x []float32) float64 {
	var sum float64
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	return sum
}

func plainSumSquares(x []float32, mean float32) float32 {
	var sum float64
	for _, v := range x {
		d := float64(v - mean)
		sum += d * d
	}
	return float32(sum)
}

func plainNormalise(out, x, weight, bias []float32, mean, scale float32) {
	for i, v := range x[:len(out)] {
		out[i] = (v-mean)*scale*weight[i] + bias[i]
	}
}

func plainNormSums(dout, x, weight []float32, mean, scale float32) (sum, along float32) {
	var s, a float64
	for i, d := range dout {
		g := d * weight[i]
		s += float64(g)
		a += float64(g * ((x[i] - mean) * scale))
	}
	return float32(s), float32(a)
}

func plainNormSlope(out, dout, x, weight []float32, mean, scale, sum, along float32) {
	for i, v := range x[:len(out)] {
		out[i] += scale * (dout[i]*weight[i] - sum - (v-mean)*scale*along)
	}
}

func plainTop(x []float32) float32 {
	top := float32(math.Inf(-1))
	for _, v := range x {
		if v > top {
			top = v
		}
	}
	return top
}

func plainExpSum(out, x []float32, shift float32) float32 {
	var sum float32
	for i, v := range x[:len(out)] {
		out[i] = exp32(v - shift)
		sum += out[i]
	}
	return sum
}

func plainScores(out, q, rows []float32, stride int, scale float32) {
	for j := range out {
		out[j] = plainDot(q, rows[j*stride:]) * scale
	}
}

func plainWeigh(out, p, rows []float32, stride int, scale float32) {
	clear(out)
	for j, w := range p {
		axpy(out, w, rows[j*stride:])
	}
	plainMultiply(out, out, scale)
}

func plainOuter(rows []float32, stride int, p, x []float32) {
	for j, w := range p {
		axpy(rows[j*stride:][:len(x)], w, x)
	}
}

// axpy is y += a·x.
func axpy(y []float32, a float32, x []float32) {
	x = x[:len(y)]
	for i := range y {
		y[i] += a * x[i]
	}
}

func plainScoreSlope(out, dp []float32, mean, scale float32) {
	for i, p := range out {
		out[i] = p * (dp[i] - mean) * scale
	}
}

func plainDropout(out, x []float32, d *dropoutRow) { dropoutFrom(0, out, x, d) }

// dropoutFrom is dropout of the columns from a multiple of four on.
func dropoutFrom(column int, out, x []float32, d *dropoutRow) {
	for i := column; i < len(out); i += 4 {
		words := kernels.Philox([4]uint32{uint32(i / 4), d.position, d.row, d.step}, d.key)
		for j := i; j < min(i+4, len(out)); j++ {
			if words[j-i] >= d.threshold {
				out[j] = x[j] * d.scale
			} else {
				out[j] = 0
			}
		}
	}
}
