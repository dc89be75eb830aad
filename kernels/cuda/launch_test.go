package cuda

import (
	"fmt"
	"testing"

	"quartet/kernels"
)

// sizes are a model's, and how many tokens an operation gets.
type sizes struct {
	T, D, F, V, keys int
	h                kernels.Heads
}

var phi = kernels.Heads{Count: 32, KV: 32, Dim: 80, Rotary: 32}

var launchSizes = []sizes{
	{T: 0, D: 8, F: 16, V: 32, keys: 4, h: kernels.Heads{Count: 2, KV: 1, Dim: 4, Rotary: 2}},
	{T: 1, D: 1, F: 1, V: 1, keys: 1, h: kernels.Heads{Count: 1, KV: 1, Dim: 1}},
	{T: 3, D: 10, F: 33, V: 517, keys: 5, h: kernels.Heads{Count: 2, KV: 2, Dim: 5, Rotary: 4}},
	{T: 40, D: 120, F: 333, V: 300, keys: 43, h: kernels.Heads{Count: 6, KV: 1, Dim: 20, Rotary: 6}},
	{T: 65, D: 5 * 26, F: 161, V: 2048, keys: 70, h: kernels.Heads{Count: 5, KV: 5, Dim: 26, Rotary: 26}},
	{T: 1, D: 2560, F: 10240, V: 51200, keys: 2048, h: phi},
	{T: 7, D: 2560, F: 10240, V: 51200, keys: 7 * 2048, h: phi},
	{T: 1024, D: 2560, F: 10240, V: 51200, keys: 1024, h: phi},
	{T: 70000, D: 2560, F: 10240, V: 51200, keys: 70000, h: phi}, // more rows than a grid's second dimension has, more logits than an int
}

// bench is a backend on a recorder, and the operands that an operation is launched with.
type bench struct {
	*testing.T
	b    *Backend
	r    *recorder
	act  kernels.DType
	skew int // rows that a view leaves out before its own, so that it begins where no vector is aligned
}

func (x *bench) tensor(d kernels.DType, rows, cols int) kernels.Tensor {
	x.Helper()
	t, err := x.b.Alloc(d, rows+x.skew, cols)
	if err != nil {
		x.Fatal(err)
	}
	return t.Slice(x.skew, rows+x.skew)
}

func (x *bench) vector(d kernels.DType, n int) kernels.Tensor { return x.tensor(d, n, 1).Reshape(1, n) }

func (x *bench) nf4(rows, cols int, twice bool) kernels.Tensor {
	x.Helper()
	t, err := x.b.Alloc(kernels.NF4, rows, cols)
	if err != nil {
		x.Fatal(err)
	}
	t.Quant = kernels.NewQuant(rows*cols, 64, kernels.F16, twice)
	t.Quant.Absmax = x.vector(t.Quant.Absmax.DType, t.Quant.Absmax.Cols)
	if twice {
		t.Quant.NestedAbsmax = x.vector(kernels.F32, t.Quant.NestedAbsmax.Cols)
	}
	return t
}

// do runs an operation; one that has something to do must queue something.
func (x *bench) do(op string, outputs int, call func()) {
	x.Helper()
	x.r.queued, x.r.work = nil, 0
	call()
	if (x.r.work > 0) != (outputs > 0) {
		x.Errorf("%s of %d elements queues %d times", op, outputs, x.r.work)
	}
	if err := x.b.Sync(); err != nil {
		x.Errorf("%s: %v", op, err)
	}
}

// TestLaunches requires every launch of every operation to fit its kernel and the GPU.
func TestLaunches(t *testing.T) {
	for _, gpu := range gpus {
		for _, act := range []kernels.DType{kernels.F32, kernels.F16, kernels.BF16} {
			for skew := range 2 {
				for _, s := range launchSizes {
					t.Run(fmt.Sprintf("%s/%v/%d/%dx%d", gpu.Name, act, skew, s.T, s.D), func(t *testing.T) {
						r := newRecorder(t, gpu, skew == 0)
						x := &bench{T: t, b: newBackend(r, act), r: r, act: act, skew: skew}
						x.elementwise(s)
						x.rows(s)
						x.linears(s)
						x.attention(s)
						x.optimisers(s)
						x.fused(s)
					})
				}
			}
		}
	}
}

var floats = []kernels.DType{kernels.F32, kernels.F16, kernels.BF16}

func (x *bench) elementwise(s sizes) {
	n := s.T * s.F
	out, in, other := x.tensor(x.act, s.T, s.F), x.tensor(x.act, s.T, s.F), x.tensor(x.act, s.T, s.F)
	x.do("Zero", n, func() { x.b.Zero(out) })
	x.do("Add", n, func() { x.b.Add(out, in, other) })
	x.do("Scale", n, func() { x.b.Scale(out, 2) })
	x.do("Gelu", n, func() { x.b.Gelu(out, in) })
	x.do("GeluBackward", n, func() { x.b.GeluBackward(out, in, other) })
	for _, to := range floats {
		converted := x.tensor(to, s.T, s.F)
		x.do("Copy", n, func() { x.b.Copy(converted, in) })
	}
	tokens := x.tensor(kernels.I32, s.T, 2)
	x.do("Dropout", n, func() {
		x.b.Dropout(out, in, tokens, 0.1, kernels.DropoutKey{Seed: 1 << 63, Step: 1 << 31, Layer: 31, Site: 17})
	})
}

func (x *bench) rows(s sizes) {
	in, out, dout := x.tensor(x.act, s.T, s.D), x.tensor(x.act, s.T, s.D), x.tensor(x.act, s.T, s.D)
	ids, stats := x.vector(kernels.I32, s.T), x.tensor(kernels.F32, s.T, 2)
	for _, d := range floats {
		table, weight, bias := x.tensor(d, s.V, s.D), x.vector(d, s.D), x.vector(d, s.D)
		x.do("Embed", out.Len(), func() { x.b.Embed(out, table, ids) })
		x.do("LayerNorm", out.Len(), func() { x.b.LayerNorm(out, stats, in, weight, bias, 1e-5) })
		x.do("LayerNorm", out.Len(), func() { x.b.LayerNorm(out, kernels.Tensor{}, in, weight, bias, 1e-5) })
		x.do("LayerNormBackward", out.Len(), func() { x.b.LayerNormBackward(out, dout, in, weight, stats) })
	}
	cache := x.tensor(x.act, s.keys, s.D)
	x.do("Scatter", in.Len(), func() { x.b.Scatter(cache, in, ids) })
	x.do("Gather", out.Len(), func() { x.b.Gather(out, cache, ids) })
	logits, losses := x.tensor(x.act, s.T, s.V), x.vector(kernels.F32, s.T)
	x.do("CrossEntropy", logits.Len(), func() { x.b.CrossEntropy(losses, kernels.Tensor{}, logits, ids, 1) })
	x.do("CrossEntropy", logits.Len(), func() { x.b.CrossEntropy(losses, logits, logits, ids, 1) })
	q, angles := x.tensor(x.act, s.T, s.h.Count*s.h.Dim), x.tensor(kernels.F32, 2048, s.h.Rotary)
	for _, inverse := range []bool{false, true} {
		x.do("Rotary", s.T*s.h.Rotary, func() { x.b.Rotary(q, ids, angles, s.h, inverse) })
	}
}

func (x *bench) linears(s sizes) {
	in, out, wide := x.tensor(x.act, s.T, s.D), x.tensor(x.act, s.T, s.F), x.tensor(x.act, s.T, s.D)
	weights := []kernels.Tensor{x.nf4(s.F, s.D, false), x.nf4(s.F, s.D, true)}
	for _, d := range floats {
		weights = append(weights, x.tensor(d, s.F, s.D))
	}
	for _, w := range weights {
		for _, bias := range []kernels.Tensor{{}, x.vector(kernels.F32, s.F), x.vector(kernels.F16, s.F)} {
			x.do("Linear", out.Len(), func() { x.b.Linear(out, in, w, bias) })
		}
		x.do("LinearBackward", wide.Len(), func() { x.b.LinearBackward(wide, out, w) })
	}
	for _, r := range []int{1, 8, 12, 64} {
		for _, d := range []kernels.DType{kernels.F32, x.act} {
			a, b, low := x.tensor(d, r, s.D), x.tensor(d, s.F, r), x.tensor(x.act, s.T, r)
			gradA := x.tensor(kernels.F32, r, s.D)
			x.do("MatMul", low.Len(), func() { x.b.MatMul(low, in, a, false, true, 1, 0) })
			x.do("MatMul", out.Len(), func() { x.b.MatMul(out, low, b, false, true, 2, 1) })
			x.do("MatMul", low.Len(), func() { x.b.MatMul(low, out, b, false, false, 2, 0) })
			x.do("MatMul", wide.Len(), func() { x.b.MatMul(wide, low, a, false, false, 1, 1) })
			x.r.queued, x.r.work = nil, 0
			x.b.MatMul(gradA, low, in, true, false, 1, 1) // nothing is added where there are no tokens
		}
	}
}

func (x *bench) attention(s sizes) {
	queries, keys := s.h.Count*s.h.Dim, s.h.KV*s.h.Dim
	q, out, dq, dout := x.tensor(x.act, s.T, queries), x.tensor(x.act, s.T, queries), x.tensor(x.act, s.T, queries), x.tensor(x.act, s.T, queries)
	k, v, dk, dv := x.tensor(x.act, s.keys, keys), x.tensor(x.act, s.keys, keys), x.tensor(x.act, s.keys, keys), x.tensor(x.act, s.keys, keys)
	spans, lse := x.tensor(kernels.I32, s.T, 2), x.tensor(kernels.F32, s.T, s.h.Count)
	x.do("Attention", out.Len(), func() { x.b.Attention(out, lse, q, k, v, spans, s.h) })
	x.do("Attention", out.Len(), func() { x.b.Attention(out, kernels.Tensor{}, q, k, v, spans, s.h) })
	x.do("AttentionBackward", out.Len()+dk.Len(), func() { x.b.AttentionBackward(dq, dk, dv, dout, q, k, v, out, lse, spans, s.h) })
}

func (x *bench) optimisers(s sizes) {
	sum := x.vector(kernels.F32, 1)
	for _, n := range []int{0, 1, 7, 1000, 70001, s.T * s.D} {
		blocks := (n + kernels.AdamBlock - 1) / kernels.AdamBlock
		param, grad, m, v := x.vector(kernels.F32, n), x.vector(kernels.F32, n), x.vector(kernels.F32, n), x.vector(kernels.F32, n)
		state1, state2, absmax1, absmax2 := x.vector(kernels.U8, n), x.vector(kernels.U8, n), x.vector(kernels.F32, blocks), x.vector(kernels.F32, blocks)
		step := kernels.AdamStep{LR: 1e-3, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, GradScale: 1, T: 1}
		x.do("SumSquares", n, func() { x.b.SumSquares(sum, grad) })
		x.do("AdamW", n, func() { x.b.AdamW(param, grad, m, v, step) })
		x.do("AdamW8bit", n, func() { x.b.AdamW8bit(param, grad, state1, absmax1, state2, absmax2, step) })
	}
	for _, twice := range []bool{false, true} {
		for _, d := range floats {
			packed, plain := x.nf4(s.T, s.D, twice), x.tensor(d, s.T, s.D)
			x.do("QuantizeNF4", packed.Len(), func() { x.b.QuantizeNF4(packed, plain) })
			x.do("DequantizeNF4", packed.Len(), func() { x.b.DequantizeNF4(plain, packed) })
			x.do("ErrorNF4", packed.Len(), func() { x.b.ErrorNF4(packed, plain) })
		}
	}
}

func (x *bench) fused(s sizes) {
	in, out, norm, a, b := x.tensor(x.act, s.T, s.D), x.tensor(x.act, s.T, s.D), x.tensor(x.act, s.T, s.D), x.tensor(x.act, s.T, s.D), x.tensor(x.act, s.T, s.D)
	stats, tokens, dout := x.tensor(kernels.F32, s.T, 2), x.tensor(kernels.I32, s.T, 2), x.tensor(x.act, s.T, s.F)
	for _, drop := range []kernels.Drop{{}, {Tokens: tokens, P: 0.1, Key: kernels.DropoutKey{Seed: 1 << 63, Step: 1 << 31, Layer: 31, Site: 17}}} {
		for _, d := range floats {
			weight, bias := x.vector(d, s.D), x.vector(kernels.F16, s.D)
			x.do("AddNorm", out.Len(), func() {
				x.b.AddNorm(out, norm, stats, in, kernels.Branch{X: a, Drop: drop}, kernels.Branch{X: b}, weight, bias, 1e-5)
			})
		}
		for _, r := range []int{1, 8, 12, 64} {
			var uses []kernels.LowRank
			var gradients []kernels.LowRankGradient
			for range 3 {
				l := kernels.LowRank{A: x.tensor(kernels.F32, r, s.D), B: x.tensor(kernels.F32, s.F, r), Scale: 2, Drop: drop, Out: dout, Low: x.tensor(x.act, s.T, r)}
				uses = append(uses, l)
				gradients = append(gradients, kernels.LowRankGradient{
					LowRank: l, GradA: x.tensor(kernels.F32, r, s.D), GradB: x.tensor(kernels.F32, s.F, r), DOut: dout, DLow: x.tensor(x.act, s.T, r),
				})
			}
			for n := 1; n <= 3; n++ {
				x.do("LowRank", dout.Len(), func() { x.b.LowRank(in, a, uses[:n]...) })
				if s.T == 0 {
					continue
				}
				for _, dx := range []kernels.Tensor{out, {}} {
					x.do("LowRankBackward", in.Len(), func() { x.b.LowRankBackward(dx, in, a, b, gradients[:n]...) })
				}
			}
		}
	}
	q, k, angles := x.tensor(x.act, s.T, s.h.Count*s.h.Dim), x.tensor(x.act, s.T, s.h.KV*s.h.Dim), x.tensor(kernels.F32, 2048, s.h.Rotary)
	positions := x.vector(kernels.I32, s.T)
	x.do("RotaryPair", s.T*s.h.Rotary, func() { x.b.RotaryPair(q, k, positions, angles, s.h, true) })
	for _, weight := range []kernels.Tensor{x.nf4(s.F, s.D, true), x.tensor(kernels.F16, s.F, s.D)} {
		x.do("LinearGradient", in.Len(), func() { x.b.LinearGradient(out, dout, weight) })
	}
}
