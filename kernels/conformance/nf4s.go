package conformance

import (
	"fmt"
	"math"

	"quartet/kernels"
)

// quantized is a host reference of an NF4 matrix.
type quantized struct {
	block  int
	codes  []byte
	absmax []float32 // of each block, as stored where not quantised itself
	nested []byte
	scales []float32
	offset float32
}

// quantize follows the format step by step, in float32.
func quantize(x []float32, block int, twice bool) quantized {
	q := quantized{block: block, codes: make([]byte, (len(x)+1)/2)}
	for from := 0; from < len(x); from += block {
		q.absmax = append(q.absmax, top(x[from:min(len(x), from+block)]))
	}
	for i := range 2 * len(q.codes) {
		code := byte(7)
		if i < len(x) {
			reciprocal := 1 / q.absmax[i/block]
			code = kernels.NF4Code(float32(x[i] * reciprocal))
		}
		q.codes[i/2] = q.codes[i/2]<<4 | code
	}
	if !twice {
		return q
	}
	var sum float64
	for _, a := range q.absmax {
		sum += float64(a)
	}
	q.offset = float32(sum / float64(max(1, len(q.absmax))))
	for from := 0; from < len(q.absmax); from += kernels.NestedBlock {
		var rest []float32
		for _, a := range q.absmax[from:min(len(q.absmax), from+kernels.NestedBlock)] {
			rest = append(rest, a-q.offset)
		}
		scale := top(rest)
		reciprocal := 1 / scale
		q.scales = append(q.scales, scale)
		for _, a := range rest {
			q.nested = append(q.nested, kernels.SignedCode(float32(a*reciprocal)))
		}
	}
	for i, code := range q.nested {
		product := float32(kernels.SignedMap[code] * q.scales[i/kernels.NestedBlock])
		q.absmax[i] = product + q.offset
	}
	return q
}

func top(x []float32) float32 {
	var t float32
	for _, v := range x {
		t = max(t, float32(math.Abs(float64(v))))
	}
	return t
}

// dequantize is the first n weights, rounded to a type.
func (q quantized) dequantize(n int, d kernels.DType) []float64 {
	out := make([]float64, n)
	for i := range out {
		code := q.codes[i/2] >> (4 * (1 - i%2)) & 15
		out[i] = float64(float32(kernels.NF4Values[code] * q.absmax[i/q.block]))
	}
	return round(d, out)
}

// nf4 brings a reference into the backend's memory.
func (r *rig) nf4(q quantized, rows, cols int, k weightKind) kernels.Tensor {
	r.Helper()
	t := r.emptyNF4(rows, cols, k)
	r.b.Upload(t, q.codes)
	if t.Quant.NestedOffset = q.offset; k.twice {
		r.b.Upload(t.Quant.Absmax, q.nested)
		r.b.Upload(t.Quant.NestedAbsmax, kernels.AsBytes(q.scales))
	} else {
		r.b.Upload(t.Quant.Absmax, kernels.AsBytes(q.absmax))
	}
	return t
}

func (r *rig) emptyNF4(rows, cols int, k weightKind) kernels.Tensor {
	r.Helper()
	t := r.alloc(kernels.NF4, rows, cols)
	t.Quant = kernels.NewQuant(rows*cols, k.block, k.round, k.twice)
	t.Quant.Absmax = r.alloc(t.Quant.Absmax.DType, 1, t.Quant.Absmax.Cols)
	if k.twice {
		t.Quant.NestedAbsmax = r.alloc(kernels.F32, 1, t.Quant.NestedAbsmax.Cols)
	}
	return t
}

// nf4Inputs are matrices that test the format's corners; they are rounded to the type quantised from.
func nf4Inputs(r *rig, kind string, n int) []float64 {
	values := r.normal(n, 0.02)
	switch kind {
	case "zeros":
		for i := range values {
			if i%300 >= 50 {
				values[i] = 0
			}
		}
	case "outlier":
		values[n/2] = 60000
	case "steps": // all 16-bit steps near the thresholds
		for i := range values {
			values[i] = float64(i%4097)/2048 - 1
		}
	}
	return values
}

func nf4s() (checks []check) {
	for _, s := range [][2]int{{0, 4}, {1, 1}, {3, 5}, {3, 50}, {17, 64}, {40, 161}, {260, 1030}} {
		for _, d := range floatTypes {
			for _, block := range []int{64, 128, 256} {
				for _, twice := range []bool{false, true} {
					for _, kind := range []string{"normal", "zeros", "outlier", "steps"} {
						rows, cols := s[0], s[1]
						if rows*cols == 0 && kind == "outlier" || rows*cols > 1e5 && block != 64 {
							continue
						}
						k := weightKind{kernels.NF4, block, twice, d}
						checks = append(checks, check{"QuantizeNF4", fmt.Sprintf("%s/%v/%dx%d", kind, k, rows, cols), func(r *rig) {
							quantizeBothWays(r, nf4Inputs(r, kind, rows*cols), rows, cols, k)
						}})
					}
				}
			}
		}
	}
	return append(checks, check{"QuantizeNF4", "wrong shapes", func(r *rig) {
		x, _ := r.random(kernels.F32, 4, 8)
		out := r.emptyNF4(8, 4, weightKinds[3])
		r.panics("x", func() { r.b.QuantizeNF4(out, x) })
		r.panics("out", func() { r.b.DequantizeNF4(x, out) })
	}})
}

func quantizeBothWays(r *rig, values []float64, rows, cols int, k weightKind) {
	x, values := r.put(k.round, rows, cols, values)
	want := quantize(float32s(values), k.block, k.twice)
	got := r.emptyNF4(rows, cols, k)
	r.b.QuantizeNF4(got, x)
	r.exact("codes", got, want.codes)
	if k.twice {
		r.exact("absmax", got.Quant.Absmax, want.nested)
		r.exact("nested absmax", got.Quant.NestedAbsmax, kernels.AsBytes(want.scales))
		if got.Quant.NestedOffset != want.offset {
			r.Errorf("offset %v, want %v", got.Quant.NestedOffset, want.offset)
		}
	} else {
		r.exact("absmax", got.Quant.Absmax, kernels.AsBytes(want.absmax))
	}
	back := r.nf4(want, rows, cols, k)
	for _, to := range floatTypes {
		out := r.alloc(to, rows, cols)
		r.b.DequantizeNF4(out, back)
		r.exact("weights as "+to.String(), out, encode(to, want.dequantize(rows*cols, k.round)))
	}
}
