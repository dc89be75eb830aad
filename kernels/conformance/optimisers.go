package conformance

import (
	"fmt"
	"math"

	"quartet/kernels"
)

func optimisers() (checks []check) {
	for _, n := range []int{0, 1, 7, 1000, 70001} {
		checks = append(checks, check{"SumSquares", fmt.Sprint(n), func(r *rig) {
			x, xs := r.random(kernels.F32, 1, n)
			out, before := r.put(kernels.F32, 1, 1, []float64{2.5})
			for _, v := range xs {
				before[0] += v * v
			}
			r.b.SumSquares(out, x)
			r.near("out", out, before, tolerance{1e-6, 0})
		}})
	}
	for _, n := range []int{1, 7, 1000, 20001} {
		for _, decay := range []float32{0, 0.01} {
			detail := fmt.Sprintf("%d/%v", n, decay)
			checks = append(checks, check{"AdamW", detail, func(r *rig) { adamW(r, n, decay) }})
			checks = append(checks, check{"AdamW8bit", detail, func(r *rig) { adamW8bit(r, n, decay) }})
		}
	}
	return append(checks, check{"AdamW8bit", "special gradients", specialGradients})
}

func step(decay float32, t int) kernels.AdamStep {
	return kernels.AdamStep{LR: 1e-3, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: decay, GradScale: 0.5, T: t}
}

// adam is one element's step in float64.
func adam(p, g, m, v float64, s kernels.AdamStep) (float64, float64, float64) {
	b1, b2 := float64(s.Beta1), float64(s.Beta2)
	g *= float64(s.GradScale)
	m, v = b1*m+(1-b1)*g, b2*v+(1-b2)*g*g
	c1, c2 := 1-math.Pow(b1, float64(s.T)), math.Sqrt(1-math.Pow(b2, float64(s.T)))
	p -= float64(s.LR) * c2 / c1 * m / (math.Sqrt(v) + c2*float64(s.Eps))
	return p * (1 - float64(s.LR)*float64(s.WeightDecay)), m, v
}

func adamW(r *rig, n int, decay float32) {
	param, ps := r.random(kernels.F32, 1, n)
	m, v := r.alloc(kernels.F32, 1, n), r.alloc(kernels.F32, 1, n)
	ms, vs := make([]float64, n), make([]float64, n)
	for t := 1; t <= 4; t++ {
		grad, gs := r.random(kernels.F32, 1, n)
		s := step(decay, t)
		r.b.AdamW(param, grad, m, v, s)
		for i := range ps {
			ps[i], ms[i], vs[i] = adam(ps[i], gs[i], ms[i], vs[i], s)
		}
	}
	r.near("param", param, ps, tolerance{3e-7, 0})
	r.near("m", m, ms, tolerance{2e-6, 0})
	r.near("v", v, vs, tolerance{2e-6, 0})
}

// adamW8bit compares one step at a time, from the states that the backend left, so that a code that falls the other way
// at a boundary doesn't spread.
func adamW8bit(r *rig, n int, decay float32) {
	blocks := (n + kernels.AdamBlock - 1) / kernels.AdamBlock
	param, ps := r.random(kernels.F32, 1, n)
	state1, state2 := r.alloc(kernels.U8, 1, n), r.alloc(kernels.U8, 1, n)
	absmax1, absmax2 := r.alloc(kernels.F32, 1, blocks), r.alloc(kernels.F32, 1, blocks)
	for t := 1; t <= 4; t++ {
		grad, gs := r.random(kernels.F32, 1, n)
		s := step(decay, t)
		codes1, codes2 := r.bytes(state1), r.bytes(state2)
		tops1, tops2 := r.values(absmax1), r.values(absmax2)
		ms, vs := make([]float64, n), make([]float64, n)
		want1, want2 := make([]float64, blocks), make([]float64, blocks)
		for i := range ps {
			block := i / kernels.AdamBlock
			m := float64(kernels.SignedMap[codes1[i]]) * tops1[block]
			v := float64(kernels.UnsignedMap[codes2[i]]) * tops2[block]
			ps[i], ms[i], vs[i] = adam(ps[i], gs[i], m, v, s)
			want1[block], want2[block] = max(want1[block], math.Abs(ms[i])), max(want2[block], vs[i])
		}
		r.b.AdamW8bit(param, grad, state1, absmax1, state2, absmax2, s)
		r.near("param", param, ps, tolerance{3e-7, 0})
		r.near("absmax1", absmax1, want1, tolerance{1e-6, 0})
		r.near("absmax2", absmax2, want2, tolerance{1e-6, 0})
		wrong := 0
		codes1, codes2 = r.bytes(state1), r.bytes(state2)
		for i := range ps {
			block := i / kernels.AdamBlock
			code1 := kernels.SignedCode(float32(ms[i] / want1[block]))
			if (kernels.SignedMap[code1] < 0) != (ms[i] < 0) && ms[i] < 0 {
				code1--
			}
			if codes1[i] != code1 {
				wrong++
			}
			if codes2[i] != kernels.UnsignedCode(float32(vs[i]/want2[block])) {
				wrong++
			}
		}
		if limit := n / 5000; wrong > limit {
			r.Fatalf("step %d: %d of %d codes differ, the limit is %d", t, wrong, 2*n, limit)
		}
		ps = r.values(param)
	}
}

// specialGradients are zeros, tiny values of both signs, infinities and NaN.
func specialGradients(r *rig) {
	values := []float64{1, -1e-12, 1e-12, 0, math.Inf(1), math.NaN(), math.Inf(-1), -1}
	n := len(values)
	param, ps := r.random(kernels.F32, 1, n)
	grad, _ := r.put(kernels.F32, 1, n, values)
	state1, state2 := r.alloc(kernels.U8, 1, n), r.alloc(kernels.U8, 1, n)
	absmax1, absmax2 := r.alloc(kernels.F32, 1, 1), r.alloc(kernels.F32, 1, 1)
	r.b.AdamW8bit(param, grad, state1, absmax1, state2, absmax2, step(0, 1))
	after := r.values(param)
	for _, i := range []int{4, 5, 6} {
		if after[i] != ps[i] {
			r.Errorf("a gradient of %v moved its parameter from %v to %v", values[i], ps[i], after[i])
		}
	}
	if codes := r.bytes(state1); codes[0] != 255 || codes[1] != 126 || codes[2] != 127 || codes[3] != 127 || codes[5] != 127 || codes[7] != 0 {
		r.Errorf("codes of first moments: %v", codes)
	}
	if codes := r.bytes(state2); codes[0] != 255 || codes[1] != 0 || codes[4] != 0 || codes[7] != 255 {
		r.Errorf("codes of second moments: %v", codes)
	}
	zeros, _ := r.put(kernels.F32, 1, n, make([]float64, n))
	r.b.Zero(absmax1)
	r.b.Zero(absmax2)
	r.b.AdamW8bit(param, zeros, state1, absmax1, state2, absmax2, step(0, 2))
	for i, v := range r.values(param) {
		if v != after[i] {
			r.Errorf("a gradient of 0 without moments moved parameter %d from %v to %v", i, after[i], v)
		}
	}
	r.near("absmax1", absmax1, []float64{0}, tolerance{})
}
