package conformance

import (
	"fmt"
	"math"
	"slices"

	"quartet/kernels"
)

// layout is a set of queries and which keys each reads.
type layout struct {
	name  string
	keys  int
	spans []int32 // (T,2)
}

// packed is causal rows end to end, of the given lengths.
func packed(lengths ...int) layout {
	l := layout{name: fmt.Sprint("packed", lengths)}
	for _, n := range lengths {
		for i := range n {
			l.spans = append(l.spans, int32(l.keys), int32(i+1))
		}
		l.keys += n
	}
	return l
}

// decoding is one query for each sequence of a cache with a capacity.
func decoding(capacity int, lengths ...int) layout {
	l := layout{name: fmt.Sprint("decoding", lengths), keys: capacity * len(lengths)}
	for i, n := range lengths {
		l.spans = append(l.spans, int32(i*capacity), int32(n))
	}
	return l
}

// continued is tokens that follow `before` cached ones in each sequence, the last sequence first.
func continued(capacity, before int, lengths ...int) layout {
	l := layout{name: fmt.Sprint("continued", lengths), keys: capacity * len(lengths)}
	for i := len(lengths) - 1; i >= 0; i-- {
		for n := range lengths[i] {
			l.spans = append(l.spans, int32(i*capacity), int32(before+n+1))
		}
	}
	return l
}

var layouts = []layout{packed(), packed(1), packed(5), packed(7, 1, 12), packed(70, 43), decoding(9, 1, 9, 4), decoding(300, 290, 17)}

var geometries = []kernels.Heads{
	{Count: 1, KV: 1, Dim: 1}, {Count: 2, KV: 2, Dim: 5}, {Count: 4, KV: 2, Dim: 16}, {Count: 6, KV: 1, Dim: 20}, {Count: 3, KV: 3, Dim: 80},
}

// attended is queries, their keys and the heads that both have.
type attended struct {
	l layout
	h kernels.Heads
}

// wide is what only larger heads or more keys bring: every width that a device has a kernel for, tiles of keys that all of a tile's
// queries read, and those that none does.
var wide = []attended{
	{packed(150), kernels.Heads{Count: 2, KV: 1, Dim: 64}},
	{packed(200, 71), kernels.Heads{Count: 1, KV: 1, Dim: 80}},
	{packed(70, 43), kernels.Heads{Count: 2, KV: 2, Dim: 88}},
	{packed(150), kernels.Heads{Count: 1, KV: 1, Dim: 96}},
	{packed(150), kernels.Heads{Count: 2, KV: 1, Dim: 128}},
	{continued(400, 90, 33, 1, 45), kernels.Heads{Count: 2, KV: 2, Dim: 80}},
	{decoding(700, 650), kernels.Heads{Count: 4, KV: 2, Dim: 128}},
}

func attentions() (checks []check) {
	cases := slices.Clone(wide)
	for _, l := range layouts {
		for _, h := range geometries {
			cases = append(cases, attended{l, h})
		}
	}
	for _, c := range cases {
		l, h := c.l, c.h
		detail := fmt.Sprintf("%s/%d-%dx%d", l.name, h.Count, h.KV, h.Dim)
		checks = append(checks, check{"Attention", detail, func(r *rig) {
			T := len(l.spans) / 2
			q, qs := r.act(T, h.Count*h.Dim)
			k, ks := r.act(l.keys, h.KV*h.Dim)
			v, vs := r.act(l.keys, h.KV*h.Dim)
			spans := r.ints(T, 2, l.spans)
			out, lse := r.junk(T, h.Count*h.Dim), r.alloc(kernels.F32, T, h.Count)
			want, wantLSE := attention(qs, ks, vs, l.spans, h)
			r.b.Attention(out, lse, q, k, v, spans, h)
			r.near("out", out, want, tolerance{2e-6, 1e-3})
			r.near("lse", lse, wantLSE, tolerance{1e-6, 0})
			again := r.junk(T, h.Count*h.Dim)
			r.b.Attention(again, kernels.Tensor{}, q, k, v, spans, h)
			r.near("out without lse", again, want, tolerance{2e-6, 1e-3})
		}}, check{"AttentionBackward", detail, func(r *rig) {
			T := len(l.spans) / 2
			q, qs := r.act(T, h.Count*h.Dim)
			k, ks := r.act(l.keys, h.KV*h.Dim)
			v, vs := r.act(l.keys, h.KV*h.Dim)
			dout, ds := r.act(T, h.Count*h.Dim)
			spans := r.ints(T, 2, l.spans)
			out, lse := r.junk(T, h.Count*h.Dim), r.alloc(kernels.F32, T, h.Count)
			r.b.Attention(out, lse, q, k, v, spans, h)
			dq := r.junk(T, h.Count*h.Dim)
			dk, dv := r.junk(l.keys, h.KV*h.Dim), r.junk(l.keys, h.KV*h.Dim)
			r.b.AttentionBackward(dq, dk, dv, dout, q, k, v, out, lse, spans, h)
			gq, gk, gv := attentionGradient(qs, ks, vs, ds, l.spans, h)
			if len(qs)+2*len(ks) < 1500 {
				f := func(q, k, v []float64) []float64 { out, _ := attention(q, k, v, l.spans, h); return out }
				fq := slope(qs, ds, func(x []float64) []float64 { return f(x, ks, vs) })
				fk := slope(ks, ds, func(x []float64) []float64 { return f(qs, x, vs) })
				fv := slope(vs, ds, func(x []float64) []float64 { return f(qs, ks, x) })
				agree(r, "the reference's dq", gq, fq)
				agree(r, "the reference's dk", gk, fk)
				agree(r, "the reference's dv", gv, fv)
				gq, gk, gv = fq, fk, fv
			}
			tol := tolerance{5e-6, 3e-3}
			r.near("dq", dq, gq, tol)
			r.near("dk", dk, gk, tol)
			r.near("dv", dv, gv, tol)
		}})
	}
	return append(checks, check{"Attention", "large scores", func(r *rig) {
		h, l := kernels.Heads{Count: 2, KV: 1, Dim: 16}, packed(9)
		q, qs := r.put(r.b.Activations(), 9, 32, r.normal(9*32, 60))
		k, ks := r.put(r.b.Activations(), 9, 16, r.normal(9*16, 60))
		v, vs := r.act(9, 16)
		out := r.junk(9, 32)
		r.b.Attention(out, kernels.Tensor{}, q, k, v, r.ints(9, 2, l.spans), h)
		want, _ := attention(qs, ks, vs, l.spans, h)
		r.near("out", out, want, tolerance{2e-3, 4e-3}) // scores near 10⁵ are known to 10⁻² only
	}}, check{"Attention", "wrong shapes", func(r *rig) {
		x, _ := r.act(3, 8)
		y, _ := r.act(3, 6)
		spans := r.ints(3, 2, packed(3).spans)
		h := kernels.Heads{Count: 2, KV: 1, Dim: 4}
		r.panics("k", func() { r.b.Attention(x, kernels.Tensor{}, x, y, y, spans, h) })
		r.panics("heads", func() { r.b.Attention(x, kernels.Tensor{}, x, x, x, spans, kernels.Heads{Count: 3, KV: 2, Dim: 4}) })
	}})
}

// agree requires the reference's analytic gradient to be its slope.
func agree(r *rig, name string, analytic, slope []float64) {
	for i, a := range analytic {
		if math.Abs(a-slope[i]) > 1e-6 {
			r.Errorf("%s: element %d is %v by formula and %v by differences", name, i, a, slope[i])
			return
		}
	}
}

// weights are the softmax of one query's scores, and the log of its denominator.
func weights(q, k []float64, span []int32, h kernels.Heads, head int) (p []float64, lse float64) {
	top, total := math.Inf(-1), 0.0
	for j := range int(span[1]) {
		key := k[((int(span[0])+j)*h.KV+head/(h.Count/h.KV))*h.Dim:]
		var score float64
		for i := range h.Dim {
			score += q[i] * key[i]
		}
		p = append(p, score/math.Sqrt(float64(h.Dim)))
		top = max(top, p[j])
	}
	for j := range p {
		p[j] = math.Exp(p[j] - top)
		total += p[j]
	}
	for j := range p {
		p[j] /= total
	}
	return p, top + math.Log(total)
}

func attention(q, k, v []float64, spans []int32, h kernels.Heads) (out, lse []float64) {
	for t := range len(spans) / 2 {
		for head := range h.Count {
			p, l := weights(q[(t*h.Count+head)*h.Dim:], k, spans[2*t:2*t+2], h, head)
			lse = append(lse, l)
			to := make([]float64, h.Dim)
			for j, w := range p {
				value := v[((int(spans[2*t])+j)*h.KV+head/(h.Count/h.KV))*h.Dim:]
				for i := range to {
					to[i] += w * value[i]
				}
			}
			out = append(out, to...)
		}
	}
	return out, lse
}

func attentionGradient(q, k, v, dout []float64, spans []int32, h kernels.Heads) (dq, dk, dv []float64) {
	dq, dk, dv = make([]float64, len(q)), make([]float64, len(k)), make([]float64, len(v))
	for t := range len(spans) / 2 {
		for head := range h.Count {
			at := (t*h.Count + head) * h.Dim
			p, _ := weights(q[at:], k, spans[2*t:2*t+2], h, head)
			dp, mean := make([]float64, len(p)), 0.0
			for j, w := range p {
				key := ((int(spans[2*t])+j)*h.KV + head/(h.Count/h.KV)) * h.Dim
				for i := range h.Dim {
					dp[j] += dout[at+i] * v[key+i]
					dv[key+i] += w * dout[at+i]
				}
				mean += w * dp[j]
			}
			for j, w := range p {
				key := ((int(spans[2*t])+j)*h.KV + head/(h.Count/h.KV)) * h.Dim
				ds := w * (dp[j] - mean) / math.Sqrt(float64(h.Dim))
				for i := range h.Dim {
					dq[at+i] += ds * k[key+i]
					dk[key+i] += ds * q[at+i]
				}
			}
		}
	}
	return dq, dk, dv
}
