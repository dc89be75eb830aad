package conformance

import (
	"fmt"
	"math"

	"quartet/kernels"
)

const epsilon = 1e-5

func norms() (checks []check) {
	for _, s := range [][2]int{{0, 4}, {1, 1}, {1, 7}, {3, 33}, {40, 160}, {7, 517}, {3, 2560}, {2, 20488}} {
		for _, d := range floatTypes {
			T, D := s[0], s[1]
			detail := fmt.Sprintf("%v/%dx%d", d, T, D)
			checks = append(checks, check{"LayerNorm", detail, func(r *rig) {
				x, xs := r.put(r.b.Activations(), T, D, shifted(r.normal(T*D, 2), 3))
				weight, ws := r.random(d, 1, D)
				bias, bs := r.random(d, 1, D)
				out, stats := r.junk(T, D), r.alloc(kernels.F32, T, 2)
				var want, moments []float64
				for t := range T {
					row := xs[t*D : (t+1)*D]
					want = append(want, norm(row, ws, bs)...)
					mean, scale := momentsOf(row)
					moments = append(moments, mean, scale)
				}
				tol := tolerance{2e-6, 1e-3}
				r.b.LayerNorm(out, stats, x, weight, bias, epsilon)
				r.near("out", out, want, tol)
				r.near("stats", stats, moments, tolerance{1e-5, 0})
				again := r.junk(T, D)
				r.b.LayerNorm(again, kernels.Tensor{}, x, weight, bias, epsilon)
				r.near("out without stats", again, want, tol)
			}}, check{"LayerNormBackward", detail, func(r *rig) {
				x, xs := r.put(r.b.Activations(), T, D, shifted(r.normal(T*D, 2), 3))
				weight, ws := r.random(d, 1, D)
				bias, bs := r.random(d, 1, D)
				dout, ds := r.act(T, D)
				dx, before := r.act(T, D)
				out, stats := r.junk(T, D), r.alloc(kernels.F32, T, 2)
				r.b.LayerNorm(out, stats, x, weight, bias, epsilon)
				r.b.LayerNormBackward(dx, dout, x, weight, stats)
				var grad []float64
				for t := range T {
					grad = append(grad, normGradient(xs[t*D:(t+1)*D], ws, ds[t*D:(t+1)*D])...)
				}
				r.near("dx", dx, sum(before, grad), tolerance{3e-6, 1e-3})
				if D < 1000 { // by differences, which takes D² steps
					grad := byRow(T, xs, ds, func(_ int, x []float64) []float64 { return norm(x, ws, bs) })
					r.near("dx", dx, sum(before, grad), tolerance{3e-6, 1e-3})
				}
			}})
		}
	}
	return append(checks, check{"LayerNorm", "wrong shapes", func(r *rig) {
		x, _ := r.act(3, 4)
		w, _ := r.random(kernels.F32, 1, 5)
		r.panics("weight", func() { r.b.LayerNorm(x, kernels.Tensor{}, x, w, w, epsilon) })
		r.panics("stats", func() { r.b.LayerNormBackward(x, x, x, w.Reshape(1, 5), w) })
	}})
}

func shifted(x []float64, by float64) []float64 {
	for i := range x {
		x[i] += by
	}
	return x
}

func momentsOf(x []float64) (mean, scale float64) {
	var squares float64
	for _, v := range x {
		mean += v / float64(len(x))
	}
	for _, v := range x {
		squares += (v - mean) * (v - mean)
	}
	return mean, 1 / math.Sqrt(squares/float64(len(x))+epsilon)
}

func norm(x, weight, bias []float64) []float64 {
	mean, scale := momentsOf(x)
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = (v-mean)*scale*weight[i] + bias[i]
	}
	return out
}

// normGradient is the gradient of norm through x.
func normGradient(x, weight, dout []float64) []float64 {
	mean, scale := momentsOf(x)
	var all, along float64
	for i, v := range x {
		g := dout[i] * weight[i]
		all += g / float64(len(x))
		along += g * (v - mean) * scale / float64(len(x))
	}
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = (dout[i]*weight[i] - all - (v-mean)*scale*along) * scale
	}
	return out
}
