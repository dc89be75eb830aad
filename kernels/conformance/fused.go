package conformance

import (
	"fmt"

	"quartet/kernels"
)

// drops are uses of dropout, none and much.
var drops = []float32{0, 0.3}

// drop is a use of dropout over T tokens, and its factors for rows of D elements.
func (r *rig) drop(p float32, T, D int) (kernels.Drop, []float64) {
	r.Helper()
	d := kernels.Drop{P: p, Key: kernels.DropoutKey{Seed: r.rand.Uint64(), Step: r.rand.Uint32(), Layer: uint16(r.rand.Uint32()), Site: uint16(r.rand.Uint32())}}
	at := make([]int32, 2*T)
	for i := range at {
		at[i] = int32(r.rand.Uint32())
	}
	d.Tokens = r.ints(T, 2, at)
	factors, keep := make([]float64, T*D), make([]bool, D)
	for t := range T {
		kernels.DropoutKeep(keep, p, d.Key, at[2*t], at[2*t+1])
		for i, k := range keep {
			if k {
				factors[t*D+i] = 1 / (1 - float64(p))
			}
		}
	}
	return d, factors
}

func times(x, y []float64) []float64 {
	out := make([]float64, len(x))
	for i := range x {
		out[i] = x[i] * y[i]
	}
	return out
}

func fused() (checks []check) {
	for _, s := range [][3]int{{0, 4, 3}, {1, 8, 16}, {3, 33, 7}, {5, 517, 40}, {40, 160, 65}, {17, 160, 96}, {70, 264, 40}} {
		T, K, N := s[0], s[1], s[2]
		for _, p := range drops {
			for _, d := range floatTypes {
				checks = append(checks, check{"AddNorm", fmt.Sprintf("%v/%dx%d/%v", d, T, K, p), func(r *rig) { addNorm(r, T, K, p, d) }})
			}
			for _, rank := range []int{1, 8, 11, 32} {
				detail := fmt.Sprintf("%dx%dx%dx%d/%v", T, K, N, rank, p)
				checks = append(checks, check{"LowRank", detail, func(r *rig) { lowRank(r, T, K, N, rank, p) }})
			}
		}
		for _, kind := range weightKinds {
			checks = append(checks, check{"LinearGradient", fmt.Sprintf("%v/%dx%dx%d", kind, T, K, N), func(r *rig) {
				dout, ds := r.act(T, N)
				weight, ws := r.weight(kind, N, K)
				dx := r.junk(T, K)
				kernels.Fuse(r.b).LinearGradient(dx, dout, weight)
				r.near("dx", dx, product(ds, ws, T, N, K, false), tolerance{2e-6, 1e-3})
			}})
		}
	}
	return checks
}

func addNorm(r *rig, T, D int, p float32, d kernels.DType) {
	x, xs := r.put(r.b.Activations(), T, D, shifted(r.normal(T*D, 2), 3))
	a, as := r.act(T, D)
	b, bs := r.act(T, D)
	weight, ws := r.random(d, 1, D)
	bias, offsets := r.random(d, 1, D)
	dropA, factorsA := r.drop(p, T, D)
	dropB, factorsB := r.drop(p, T, D)
	total := sum(xs, sum(times(as, factorsA), times(bs, factorsB)))
	out, normed, stats := r.junk(T, D), r.junk(T, D), r.alloc(kernels.F32, T, 2)
	for _, into := range [][2]kernels.Tensor{{out, normed}, {x, b}} {
		r.b.Upload(x, encode(x.DType, xs))
		r.b.Upload(a, encode(a.DType, as))
		r.b.Upload(b, encode(b.DType, bs))
		kernels.Fuse(r.b).AddNorm(into[0], into[1], stats, x, kernels.Branch{X: a, Drop: dropA}, kernels.Branch{X: b, Drop: dropB}, weight, bias, epsilon)
		r.near("out", into[0], total, tolerance{3e-7, 2e-3})
		var want, moments []float64 // of the sum as it is stored
		for t, stored := 0, r.values(into[0]); t < T; t++ {
			row := stored[t*D : (t+1)*D]
			want = append(want, norm(row, ws, offsets)...)
			mean, scale := momentsOf(row)
			moments = append(moments, mean, scale)
		}
		r.near("norm", into[1], want, tolerance{2e-6, 1e-3})
		r.near("stats", stats, moments, tolerance{1e-5, 0})
		again, stats2 := r.junk(T, D), r.alloc(kernels.F32, T, 2)
		r.b.LayerNorm(again, stats2, into[0], weight, bias, epsilon)
		r.exact("norm as LayerNorm has it", again, r.bytes(into[1]))
		r.exact("stats as LayerNorm has them", stats2, r.bytes(stats))
	}
}

func lowRank(r *rig, T, K, N, rank int, p float32) {
	act := r.b.Activations()
	tol := tolerance{tolerance{3e-6, 8e-3}.of(act), 8e-3} // gradients are F32, but what they are made of has the activations' type
	x, xs := r.act(T, K)
	a, as := r.random(kernels.F32, rank, K)
	b, bs := r.random(kernels.F32, N, rank)
	l := kernels.LowRank{A: a, B: b, Scale: 1.75}
	drop, factors := r.drop(p, T, K)
	input := times(xs, factors)
	low := product(input, as, T, K, rank, true)
	scaled := func(x []float64) []float64 { return each(x, func(v float64) float64 { return v * float64(l.Scale) }) }

	out, before := r.act(T, N)
	w := kernels.LowRankWork{Low: r.junk(T, rank), Input: r.junk(T, K)}
	kernels.Fuse(r.b).LowRank(out, x, l, drop, w)
	r.near("out", out, sum(before, scaled(product(low, bs, T, rank, N, true))), tol)

	dout, ds := r.act(T, N)
	dx, dx0 := r.act(T, K)
	gradA, gradA0 := r.random(kernels.F32, rank, K)
	gradB, gradB0 := r.random(kernels.F32, N, rank)
	w.DLow, w.DInput = r.junk(T, rank), r.junk(T, K)
	kernels.Fuse(r.b).LowRankBackward(dx, gradA, gradB, dout, x, l, drop, w)
	dlow := scaled(product(ds, bs, T, N, rank, false))
	r.near("dx", dx, sum(dx0, times(product(dlow, as, T, rank, K, false), factors)), tol)
	r.near("gradA", gradA, sum(gradA0, product(transposed(dlow, T, rank), input, rank, T, K, false)), tol)
	r.near("gradB", gradB, sum(gradB0, scaled(product(transposed(ds, T, N), low, N, T, rank, false))), tol)
}

func transposed(x []float64, rows, cols int) []float64 {
	out := make([]float64, len(x))
	for i := range rows {
		for j := range cols {
			out[j*rows+i] = x[i*cols+j]
		}
	}
	return out
}
