package conformance

import (
	"fmt"
	"math"

	"quartet/kernels"
)

// rows are the operations that move or turn rows.
func rows() (checks []check) {
	add := func(op, detail string, run func(r *rig)) { checks = append(checks, check{op, detail, run}) }
	for _, d := range floatTypes {
		for _, s := range [][3]int{{0, 5, 3}, {1, 1, 1}, {7, 5, 33}, {70, 300, 517}} {
			T, V, D := s[0], s[1], s[2]
			add("Embed", fmt.Sprintf("%v/%dx%dx%d", d, T, V, D), func(r *rig) {
				table, values := r.random(d, V, D)
				at := make([]int32, T)
				var want []float64
				for t := range at {
					at[t] = int32(r.rand.IntN(V))
					want = append(want, values[int(at[t])*D:][:D]...)
				}
				out := r.junk(T, D)
				r.b.Embed(out, table, r.ints(1, T, at))
				r.exact("out", out, encode(out.DType, want))
			})
		}
	}
	for _, s := range [][3]int{{0, 4, 3}, {1, 1, 1}, {3, 8, 5}, {40, 90, 333}} {
		n, total, D := s[0], s[1], s[2]
		shape := fmt.Sprintf("%d of %dx%d", n, total, D)
		add("Scatter", shape, func(r *rig) {
			x, xs := r.act(n, D)
			out, want := r.act(total, D)
			at := r.permutation(total)[:n]
			for i, row := range at {
				copy(want[int(row)*D:][:D], xs[i*D:])
			}
			r.b.Scatter(out, x, r.ints(1, n, at))
			r.exact("out", out, encode(out.DType, want))
		})
		add("Gather", shape, func(r *rig) {
			x, xs := r.act(total, D)
			out := r.junk(n, D)
			at := make([]int32, n)
			var want []float64
			for i := range at {
				at[i] = int32(r.rand.IntN(total))
				want = append(want, xs[int(at[i])*D:][:D]...)
			}
			r.b.Gather(out, x, r.ints(1, n, at))
			r.exact("out", out, encode(out.DType, want))
		})
	}
	for _, c := range []struct {
		T, heads int
		h        kernels.Heads
	}{{0, 2, kernels.Heads{Dim: 8, Rotary: 4}}, {1, 1, kernels.Heads{Dim: 2, Rotary: 2}}, {5, 3, kernels.Heads{Dim: 20, Rotary: 6}},
		{65, 5, kernels.Heads{Dim: 80, Rotary: 32}}, {4, 2, kernels.Heads{Dim: 7, Rotary: 0}}, {9, 2, kernels.Heads{Dim: 26, Rotary: 26}}} {
		add("Rotary", fmt.Sprintf("%dx%dx%d-%d", c.T, c.heads, c.h.Dim, c.h.Rotary), func(r *rig) {
			const positions = 200
			x, xs := r.act(c.T, c.heads*c.h.Dim)
			table := angles(positions, c.h.Rotary)
			angles, _ := r.put(kernels.F32, positions, c.h.Rotary, table)
			table = round(kernels.F32, table)
			at := make([]int32, c.T)
			for t := range at {
				at[t] = int32(r.rand.IntN(positions))
			}
			where := r.ints(1, c.T, at)
			r.b.Rotary(x, where, angles, c.h, false)
			turned := rotary(xs, at, table, c.h, 1)
			r.near("x", x, turned, tolerance{2e-7, 6e-4})
			other, others := r.act(c.T, 2*c.h.Dim)
			r.b.Upload(x, encode(x.DType, xs))
			kernels.Fuse(r.b).RotaryPair(x, other, where, angles, c.h, false)
			r.near("x of a pair", x, turned, tolerance{2e-7, 6e-4})
			r.near("y of a pair", other, rotary(others, at, table, c.h, 1), tolerance{2e-7, 6e-4})
			r.b.Upload(x, encode(x.DType, xs))
			r.b.Rotary(x, where, angles, c.h, true)
			r.near("x turned back", x, rotary(xs, at, table, c.h, -1), tolerance{2e-7, 6e-4})
		})
	}
	add("Rows", "wrong shapes", func(r *rig) {
		x, _ := r.act(3, 4)
		y, _ := r.act(5, 3)
		three := r.ints(1, 3, []int32{0, 1, 2})
		r.panics("Scatter", func() { r.b.Scatter(y, x, three) })
		r.panics("Gather", func() { r.b.Gather(y, y, three) })
		r.panics("Embed", func() { r.b.Embed(x, y, three) })
		table, _ := r.put(kernels.F32, 8, 2, make([]float64, 16))
		r.panics("Rotary", func() { r.b.Rotary(x, three, table, kernels.Heads{Dim: 3, Rotary: 2}, false) })
	})
	return checks
}

func (r *rig) permutation(n int) []int32 {
	out := make([]int32, n)
	for i, v := range r.rand.Perm(n) {
		out[i] = int32(v)
	}
	return out
}

// angles is the table of cosines and sines by position.
func angles(positions, rotary int) []float64 {
	var table []float64
	for p := range positions {
		for _, f := range []func(float64) float64{math.Cos, math.Sin} {
			for i := range rotary / 2 {
				table = append(table, f(float64(p)*math.Pow(10000, -2*float64(i)/float64(rotary))))
			}
		}
	}
	return table
}

func rotary(x []float64, at []int32, table []float64, h kernels.Heads, sign float64) []float64 {
	out := append([]float64(nil), x...)
	half := h.Rotary / 2
	for t, p := range at {
		width := len(x) / len(at)
		for head := t * width; head < (t+1)*width; head += h.Dim {
			for i := range half {
				cos, sin := table[int(p)*h.Rotary+i], sign*table[int(p)*h.Rotary+half+i]
				a, b := x[head+i], x[head+half+i]
				out[head+i], out[head+half+i] = a*cos-b*sin, b*cos+a*sin
			}
		}
	}
	return out
}
