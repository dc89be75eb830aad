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
	for _, s := range [][2]int{{3, 2560}, {2, 20488}} {
		for _, p := range drops {
			checks = append(checks, check{"AddNorm", fmt.Sprintf("%dx%d/%v", s[0], s[1], p), func(r *rig) { addNorm(r, s[0], s[1], p, kernels.F16) }})
		}
	}
	for _, s := range [][3]int{{0, 4, 3}, {1, 8, 16}, {3, 33, 7}, {5, 517, 40}, {40, 160, 65}, {17, 160, 96}, {70, 264, 40}} {
		T, K, N := s[0], s[1], s[2]
		for _, p := range drops {
			for _, d := range floatTypes {
				checks = append(checks, check{"AddNorm", fmt.Sprintf("%v/%dx%d/%v", d, T, K, p), func(r *rig) { addNorm(r, T, K, p, d) }})
			}
			for _, rank := range []int{1, 8, 11, 32} {
				for _, widths := range [][]int{{N}, {N, 8, N}} { // outputs of the adapters that share an input
					detail := fmt.Sprintf("%dx%dx%dx%d/%d/%v", T, K, N, rank, len(widths), p)
					checks = append(checks, check{"LowRank", detail, func(r *rig) { lowRank(r, T, K, widths, rank, p) }})
				}
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

func lowRank(r *rig, T, K int, widths []int, rank int, p float32) {
	act := r.b.Activations()
	tol := tolerance{tolerance{3e-6, 8e-3}.of(act), 8e-3} // gradients are F32, but what they are made of has the activations' type
	x, xs := r.act(T, K)
	room, dxRoom := r.junk(T, K), r.junk(T, K)
	scaled := func(x []float64, by float32) []float64 {
		return each(x, func(v float64) float64 { return v * float64(by) })
	}
	var forward []kernels.LowRank
	var backward []kernels.LowRankGradient
	var outs, gradsA, addsA, gradsB [][]float64
	dx, dxs := r.act(T, K)
	for i, N := range widths {
		a, as := r.random(kernels.F32, rank, K)
		b, bs := r.random(kernels.F32, N, rank)
		out, before := r.act(T, N)
		dout, ds := r.act(T, N)
		gradA, gradA0 := r.random(kernels.F32, rank, K)
		gradB, gradB0 := r.random(kernels.F32, N, rank)
		drop, factors := r.drop(p, T, K)
		l := kernels.LowRank{A: a, B: b, Scale: 1.75 - float32(i), Drop: drop, Out: out, Low: r.junk(T, rank)}
		forward = append(forward, l)
		backward = append(backward, kernels.LowRankGradient{LowRank: l, GradA: gradA, GradB: gradB, DOut: dout, DLow: r.junk(T, rank)})

		input := times(xs, factors)
		low := product(input, as, T, K, rank, true)
		outs = append(outs, sum(before, scaled(product(low, bs, T, rank, N, true), l.Scale)))
		dlow := scaled(product(ds, bs, T, N, rank, false), l.Scale)
		dxs = sum(dxs, times(product(dlow, as, T, rank, K, false), factors))
		addsA = append(addsA, product(transposed(dlow, T, rank), input, rank, T, K, false))
		gradsA = append(gradsA, sum(gradA0, addsA[i]))
		gradsB = append(gradsB, sum(gradB0, scaled(product(transposed(ds, T, N), low, N, T, rank, false), l.Scale)))
	}
	fused := kernels.Fuse(r.b)
	fused.LowRank(x, room, forward...)
	fused.LowRankBackward(dx, x, room, dxRoom, backward...)
	r.near("dx", dx, dxs, tol)
	for i, l := range backward {
		r.near("out", forward[i].Out, outs[i], tol)
		r.near("GradA", l.GradA, gradsA[i], tol)
		r.near("GradB", l.GradB, gradsB[i], tol)
	}
	kept := r.bytes(dx)
	fused.LowRankBackward(kernels.Tensor{}, x, room, dxRoom, backward...) // dx is not wanted
	r.exact("dx", dx, kept)
	for i, l := range backward {
		r.near("GradA without dx", l.GradA, sum(gradsA[i], addsA[i]), tol)
	}
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
