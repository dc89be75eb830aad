package conformance

import (
	"fmt"
	"math"

	"quartet/kernels"
)

var floatTypes = []kernels.DType{kernels.F32, kernels.F16, kernels.BF16}

// shapes of elementwise operations: the last ones are shared among threads.
var shapes = [][2]int{{0, 5}, {1, 1}, {1, 7}, {3, 33}, {5, 160}, {129, 517}}

func elementwise() (checks []check) {
	add := func(op, detail string, run func(r *rig)) { checks = append(checks, check{op, detail, run}) }
	for _, s := range shapes {
		rows, cols := s[0], s[1]
		shape := fmt.Sprintf("%dx%d", rows, cols)
		add("Zero", shape, func(r *rig) {
			x, _ := r.act(rows, cols)
			r.b.Zero(x)
			r.exact("x", x, make([]byte, x.DType.Bytes(x.Len())))
		})
		for _, from := range floatTypes {
			for _, to := range floatTypes {
				add("Copy", fmt.Sprintf("%s/%v-%v", shape, from, to), func(r *rig) {
					x, values := r.random(from, rows, cols)
					out := r.alloc(to, rows, cols)
					r.b.Copy(out, x)
					r.exact("out", out, encode(to, values))
				})
			}
		}
		add("Add", shape, func(r *rig) {
			x, xs := r.act(rows, cols)
			y, ys := r.act(rows, cols)
			out := r.junk(rows, cols)
			want, tol := sum(xs, ys), tolerance{1e-7, 6e-4}
			r.b.Add(out, x, y)
			r.near("out", out, want, tol)
			r.b.Add(x, x, y)
			r.near("out that is x", x, want, tol)
			r.b.Upload(x, encode(x.DType, xs))
			r.b.Add(y, x, y)
			r.near("out that is y", y, want, tol)
		})
		add("Scale", shape, func(r *rig) {
			x, xs := r.act(rows, cols)
			for i := range xs {
				xs[i] *= -1.75
			}
			r.b.Scale(x, -1.75)
			r.near("x", x, xs, tolerance{1e-7, 6e-4})
		})
		add("Gelu", shape, func(r *rig) {
			x, xs := r.put(r.b.Activations(), rows, cols, r.normal(rows*cols, 3))
			out := r.junk(rows, cols)
			r.b.Gelu(out, x)
			r.near("out", out, each(xs, gelu), tolerance{3e-7, 6e-4})
		})
		add("GeluBackward", shape, func(r *rig) {
			x, xs := r.put(r.b.Activations(), rows, cols, r.normal(rows*cols, 3))
			dout, ds := r.act(rows, cols)
			dx := r.junk(rows, cols)
			want := make([]float64, len(xs))
			for i := range want {
				want[i] = slope(xs[i:i+1], ds[i:i+1], func(x []float64) []float64 { return each(x, gelu) })[0]
			}
			r.b.GeluBackward(dx, dout, x)
			r.near("dx", dx, want, tolerance{5e-7, 6e-4})
			r.b.GeluBackward(dout, dout, x)
			r.near("dx that is dout", dout, want, tolerance{5e-7, 6e-4})
		})
	}
	add("Copy", "extremes", func(r *rig) {
		values := []float64{0, math.Copysign(0, -1), 1e-8, -6e-8, 3e-6, 65504, 65519, 65521, -1e30, 1e-40, math.Inf(1), math.Inf(-1), 1.00048828125, 1.00146484375, 5.9e-5}
		for _, to := range floatTypes {
			x, _ := r.put(kernels.F32, 1, len(values), values)
			out := r.alloc(to, 1, len(values))
			r.b.Copy(out, x)
			r.exact(to.String(), out, encode(to, values))
		}
	})
	add("Gelu", "far", func(r *rig) {
		values := []float64{0, -0.001, 0.001, -4, 4, -9, 9, -50, 50, -1000, 1000, -30000, 30000}
		x, xs := r.put(r.b.Activations(), 1, len(values), values)
		out := r.junk(1, len(values))
		r.b.Gelu(out, x)
		for i, got := range r.values(out) {
			if w := gelu(xs[i]); !(math.Abs(got-w) <= 1e-6+1e-3*math.Abs(w)) {
				r.Errorf("gelu(%v) is %v, want %v", xs[i], got, w)
			}
		}
		r.b.Upload(out, encode(out.DType, make([]float64, len(values))))
		ones := make([]float64, len(values))
		for i := range ones {
			ones[i] = 1
		}
		dout, _ := r.put(r.b.Activations(), 1, len(values), ones)
		r.b.GeluBackward(out, dout, x)
		for i, got := range r.values(out) {
			if w := geluSlope(xs[i]); !(math.Abs(got-w) <= 1e-3) {
				r.Errorf("gelu'(%v) is %v, want %v", xs[i], got, w)
			}
		}
	})
	add("Upload", "view", func(r *rig) {
		x, xs := r.act(5, 3)
		r.b.Upload(x.Slice(1, 3), encode(x.DType, []float64{1, 2, 3, 4, 5, 6}))
		copy(xs[3:], []float64{1, 2, 3, 4, 5, 6})
		r.exact("x", x, encode(x.DType, xs))
		r.panics("too few bytes", func() { r.b.Upload(x, make([]byte, 4)) })
		r.panics("too many bytes", func() { r.b.Download(make([]byte, 400), x) })
	})
	add("Import", "misaligned", func(r *rig) {
		values := r.normal(12, 1)
		data := append([]byte{0}, encode(kernels.F16, values)...)[1:]
		x, err := r.b.Import(kernels.HostTensor(kernels.F16, 3, 4, data))
		if err != nil {
			r.Fatal(err)
		}
		r.exact("x", x, data)
		r.b.Free(x)
		r.b.Free(kernels.Tensor{})
	})
	add("Elementwise", "wrong shapes", func(r *rig) {
		x, _ := r.act(2, 3)
		y, _ := r.act(3, 2)
		r.panics("Add", func() { r.b.Add(x, x, y) })
		r.panics("Copy", func() { r.b.Copy(x, y) })
		r.panics("Gelu", func() { r.b.Gelu(x, y) })
		r.panics("GeluBackward", func() { r.b.GeluBackward(x, x, y) })
	})
	return checks
}

func each(x []float64, f func(float64) float64) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = f(v)
	}
	return out
}

func gelu(x float64) float64 {
	return 0.5 * x * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
}

func geluSlope(x float64) float64 {
	return slope([]float64{x}, []float64{1}, func(x []float64) []float64 { return each(x, gelu) })[0]
}
