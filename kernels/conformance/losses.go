package conformance

import (
	"fmt"
	"math"

	"quartet/kernels"
)

func losses() (checks []check) {
	for _, s := range [][2]int{{0, 5}, {1, 1}, {1, 7}, {5, 33}, {9, 517}, {3, 2048}, {40, 300}} {
		T, V := s[0], s[1]
		checks = append(checks, check{"CrossEntropy", fmt.Sprintf("%dx%d", T, V), func(r *rig) {
			const scale = 0.37
			logits, xs := r.put(r.b.Activations(), T, V, r.normal(T*V, 4))
			at := make([]int32, T)
			var want, grad []float64
			for t := range at {
				if at[t] = int32(r.rand.IntN(V)); t%4 == 3 {
					at[t] = -100
					want, grad = append(want, 0), append(grad, make([]float64, V)...)
					continue
				}
				row := xs[t*V : (t+1)*V]
				want = append(want, crossEntropy(row, int(at[t])))
				if V < 600 {
					grad = append(grad, slope(row, []float64{scale}, func(x []float64) []float64 { return []float64{crossEntropy(x, int(at[t]))} })...)
				} else {
					grad = append(grad, crossEntropyGradient(row, int(at[t]), scale)...)
				}
			}
			labels, out, dlogits := r.ints(1, T, at), r.alloc(kernels.F32, 1, T), r.junk(T, V)
			r.b.CrossEntropy(out, kernels.Tensor{}, logits, labels, scale)
			r.near("losses alone", out, want, tolerance{1e-6, 0})
			r.b.CrossEntropy(out, dlogits, logits, labels, scale)
			r.near("losses", out, want, tolerance{1e-6, 0})
			r.near("dlogits", dlogits, grad, tolerance{1e-6, 1e-3})
			r.b.CrossEntropy(out, logits, logits, labels, scale)
			r.near("losses in place", out, want, tolerance{1e-6, 0})
			r.near("dlogits in place", logits, grad, tolerance{1e-6, 1e-3})
		}})
	}
	return append(checks, check{"CrossEntropy", "large logits", func(r *rig) {
		logits, xs := r.put(r.b.Activations(), 2, 5, []float64{20000, -20000, 0, 19990, 5, -30000, -30000, -30010, -30000, -30000})
		out := r.alloc(kernels.F32, 1, 2)
		r.b.CrossEntropy(out, kernels.Tensor{}, logits, r.ints(1, 2, []int32{3, 1}), 1)
		r.near("losses", out, []float64{crossEntropy(xs[:5], 3), crossEntropy(xs[5:], 1)}, tolerance{1e-6, 0})
	}}, check{"CrossEntropy", "wrong shapes", func(r *rig) {
		x, _ := r.act(2, 5)
		r.panics("losses", func() { r.b.CrossEntropy(r.alloc(kernels.F32, 1, 3), x, x, r.ints(1, 2, []int32{0, 0}), 1) })
	}})
}

func crossEntropy(logits []float64, label int) float64 {
	top, total := math.Inf(-1), 0.0
	for _, v := range logits {
		top = max(top, v)
	}
	for _, v := range logits {
		total += math.Exp(v - top)
	}
	return math.Log(total) + top - logits[label]
}

func crossEntropyGradient(logits []float64, label int, scale float64) []float64 {
	grad := make([]float64, len(logits))
	for i := range grad {
		grad[i] = scale * math.Exp(-crossEntropy(logits, i))
	}
	grad[label] -= scale
	return grad
}
