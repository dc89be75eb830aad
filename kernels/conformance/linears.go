package conformance

import (
	"fmt"

	"quartet/kernels"
)

// weightKind is a way to store a weight matrix.
type weightKind struct {
	d     kernels.DType
	block int  // of NF4
	twice bool // double quantisation
	round kernels.DType
}

func (k weightKind) String() string {
	if k.d != kernels.NF4 {
		return k.d.String()
	}
	return fmt.Sprintf("nf4-%d-%t-%v", k.block, k.twice, k.round)
}

var weightKinds = []weightKind{
	{d: kernels.F32}, {d: kernels.F16}, {d: kernels.BF16},
	{kernels.NF4, 64, true, kernels.F16}, {kernels.NF4, 128, false, kernels.BF16}, {kernels.NF4, 64, false, kernels.F32},
}

// tolerance is a product's with such weights. NF4 weights that are rounded to 16 bits may be multiplied without that
// rounding, which moves each by up to 2⁻¹¹ (5e-4) of itself, and in whole numbers of at least 2·16383 steps.
func (k weightKind) tolerance() tolerance {
	if k.d == kernels.NF4 && k.round == kernels.F16 {
		return tolerance{5e-4, 1e-3}
	}
	return tolerance{2e-6, 1e-3}
}

// weight is a random matrix stored as k says, and the values that it stands for.
func (r *rig) weight(k weightKind, rows, cols int) (kernels.Tensor, []float64) {
	r.Helper()
	values := r.normal(rows*cols, 0.1)
	if k.d != kernels.NF4 {
		return r.put(k.d, rows, cols, values)
	}
	q := quantize(float32s(values), k.block, k.twice)
	return r.nf4(q, rows, cols, k), q.dequantize(len(values), k.round)
}

// linears are weight products: (tokens, inputs, outputs). Decoding has few tokens, training many; both have widths that
// fill no vector, and NF4 rows that start inside blocks and bytes.
func linears() (checks []check) {
	for _, s := range [][3]int{
		{0, 4, 3}, {1, 1, 1}, {1, 7, 5}, {1, 160, 33}, {2, 33, 160}, {3, 517, 40}, {5, 160, 129}, {6, 16, 16}, {7, 50, 31},
		{13, 35, 97}, {33, 161, 70}, {64, 320, 100}, {97, 600, 85}, {1, 1040, 700}, {4, 1031, 301}, {1, 640, 75}, {2, 2560, 31}, {3, 192, 90}, {4, 1024, 30}, {5, 704, 20}, {8, 512, 33},
		{11, 1032, 520}, {12, 1088, 490}, {45, 1088, 490}, {70, 1056, 544},
	} {
		T, K, N := s[0], s[1], s[2]
		for _, kind := range weightKinds {
			if T*K*N > 5e6 && kind.d == kernels.F32 {
				continue // the large ones are there for kernels that widen weights by rows
			}
			detail := fmt.Sprintf("%v/%dx%dx%d", kind, T, K, N)
			checks = append(checks, check{"Linear", detail, func(r *rig) {
				x, xs := r.act(T, K)
				weight, ws := r.weight(kind, N, K)
				bias, bs := r.random([]kernels.DType{kernels.F32, kernels.F16, kernels.BF16}[N%3], 1, N)
				want := product(xs, ws, T, K, N, true)
				out, tol := r.junk(T, N), kind.tolerance()
				r.b.Linear(out, x, weight, kernels.Tensor{})
				r.near("out without bias", out, want, tol)
				for i := range want {
					want[i] += bs[i%N]
				}
				r.b.Linear(out, x, weight, bias)
				r.near("out", out, want, tol)
			}}, check{"LinearBackward", detail, func(r *rig) {
				dout, ds := r.act(T, N)
				weight, ws := r.weight(kind, N, K)
				dx, before := r.act(T, K)
				r.b.LinearBackward(dx, dout, weight)
				r.near("dx", dx, sum(before, product(ds, ws, T, N, K, false)), tolerance{2e-6, 1e-3})
			}})
		}
	}
	return append(checks, check{"LinearBackward", "differences", func(r *rig) {
		const T, K, N = 3, 10, 7
		dout, ds := r.act(T, N)
		weight, ws := r.weight(weightKinds[3], N, K)
		dx, before := r.act(T, K)
		r.b.LinearBackward(dx, dout, weight)
		grad := slope(make([]float64, T*K), ds, func(x []float64) []float64 { return product(x, ws, T, K, N, true) })
		r.near("dx", dx, sum(before, grad), tolerance{2e-6, 1e-3})
	}}, check{"Linear", "wrong shapes", func(r *rig) {
		x, _ := r.act(3, 4)
		w, _ := r.random(kernels.F16, 5, 6)
		out, _ := r.act(3, 5)
		r.panics("weight", func() { r.b.Linear(out, x, w, kernels.Tensor{}) })
		r.panics("dx", func() { r.b.LinearBackward(x, out, w) })
		r.panics("NF4 without scales", func() {
			r.b.Linear(out, x, kernels.Tensor{DType: kernels.NF4, Rows: 5, Cols: 4, Host: make([]byte, 10)}, kernels.Tensor{})
		})
	}})
}

// product is x (M,K) · y, with y (K,N) or transposed (N,K).
func product(x, y []float64, M, K, N int, transposed bool) []float64 {
	out := make([]float64, M*N)
	for i := range M {
		for k := range K {
			a := x[i*K+k]
			if transposed {
				for j := range N {
					out[i*N+j] += a * y[j*K+k]
				}
			} else {
				for j := range N {
					out[i*N+j] += a * y[k*N+j]
				}
			}
		}
	}
	return out
}

// products are MatMul's shapes: (rows, inner, columns), thin ones as LoRA has them among them.
func products() (checks []check) {
	for _, s := range [][3]int{{0, 3, 2}, {1, 1, 1}, {3, 0, 5}, {5, 8, 7}, {40, 160, 8}, {8, 40, 160}, {33, 8, 517}, {517, 9, 8}, {50, 70, 90}, {100, 301, 65}} {
		M, K, N := s[0], s[1], s[2]
		for flags := range 4 {
			transX, transY := flags&1 != 0, flags&2 != 0
			checks = append(checks, check{"MatMul", fmt.Sprintf("%dx%dx%d-%t-%t", M, K, N, transX, transY), func(r *rig) {
				// Odd combinations mix F32 with the activation type, as LoRA does.
				dx, dy := r.b.Activations(), kernels.F32
				x, xs := r.random(dx, M, K)
				y, ys := r.random(dy, K, N)
				want := product(xs, ys, M, K, N, false)
				if transX {
					x, _ = r.put(dx, K, M, transpose(xs, M, K))
				}
				if transY {
					y, _ = r.put(dy, N, K, transpose(ys, K, N))
				}
				tol := tolerance{2e-6, 1e-3}
				out := r.junk(M, N)
				r.b.MatMul(out, x, y, transX, transY, 0.5, 0)
				for i := range want {
					want[i] *= 0.5
				}
				r.near("out", out, want, tol)
				more, before := r.act(M, N)
				r.b.MatMul(more, x, y, transX, transY, 0.5, 1)
				r.near("out with beta 1", more, sum(before, want), tol)
				less, before := r.act(M, N)
				r.b.MatMul(less, x, y, transX, transY, 0.5, -0.25)
				for i := range before {
					before[i] *= -0.25
				}
				r.near("out with beta -0.25", less, sum(before, want), tol)
			}})
		}
	}
	return append(checks, check{"MatMul", "wrong shapes", func(r *rig) {
		x, _ := r.act(3, 4)
		y, _ := r.act(4, 5)
		out, _ := r.act(3, 5)
		r.panics("inner", func() { r.b.MatMul(out, x, y, true, false, 1, 0) })
		r.panics("columns", func() { r.b.MatMul(x, x, y, false, false, 1, 0) })
	}})
}

func transpose(x []float64, rows, cols int) []float64 {
	out := make([]float64, len(x))
	for i := range rows {
		for j := range cols {
			out[j*rows+i] = x[i*cols+j]
		}
	}
	return out
}
