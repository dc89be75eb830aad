package cpu

import (
	"fmt"
	"math"

	"quartet/kernels"
)

func checkAttention(op string, q, k, v, spans kernels.Tensor, h kernels.Heads) {
	if h.KV <= 0 || h.Count%h.KV != 0 {
		panic(fmt.Sprintf("cpu: %s: %d heads share %d key heads", op, h.Count, h.KV))
	}
	kernels.Want(op, "q", q, kernels.F32, q.Rows, h.Count*h.Dim)
	kernels.Want(op, "k", k, kernels.F32, k.Rows, h.KV*h.Dim)
	kernels.Want(op, "v", v, kernels.F32, k.Rows, h.KV*h.Dim)
	kernels.Want(op, "spans", spans, kernels.I32, q.Rows, 2)
}

// keys is how many keys the queries attend to in all, which is what attention costs.
func keys(spans []int32) int {
	n := 0
	for t := 1; t < len(spans); t += 2 {
		n += int(spans[t])
	}
	return n
}

// Attention sets out (T, h.Count·h.Dim) = softmax(q·kᵀ/sqrt(h.Dim))·v over each query's span of keys.
// A query without keys gets 0.
func (b *Backend) Attention(out, lse, q, k, v, spans kernels.Tensor, h kernels.Heads) {
	T, H, d := q.Rows, h.Count, h.Dim
	checkAttention("Attention", q, k, v, spans, h)
	kernels.Want("Attention", "out", out, kernels.F32, T, H*d)
	var ls []float32
	if !lse.IsZero() {
		kernels.Want("Attention", "lse", lse, kernels.F32, T, H)
		ls = lse.F32s()
	}
	o, qs, ks, vs, sp := out.F32s(), q.F32s(), k.F32s(), v.F32s(), spans.I32s()
	scale, stride, group := float32(1/math.Sqrt(float64(d))), h.KV*d, H/h.KV
	cost := keys(sp) / max(1, T) * (2*d + 8) / 8
	b.pool.each(T*H, grain(cost), func(w *worker, lo, hi int) {
		for item := lo; item < hi; item++ {
			t, head := item/H, item%H
			start, n := int(sp[2*t]), int(sp[2*t+1])
			query, to := qs[item*d:(item+1)*d], o[item*d:(item+1)*d]
			at := start*stride + head/group*d
			scores := w.floats(0, n)
			if n == 0 {
				clear(to)
				continue
			}
			b.loops.scores(scores, query, ks[at:], stride, scale)
			top := b.loops.top(scores)
			sum := b.loops.expSum(scores, scores, top)
			b.loops.weigh(to, scores, vs[at:], stride, 1/sum)
			if ls != nil {
				ls[item] = top + float32(math.Log(float64(sum)))
			}
		}
	})
}

// AttentionBackward sets dq, dk and dv. The softmax is computed again from lse; with D = dout·out, a score's
// gradient is p·(dout·v - D). A thread takes a key head of queries whose keys no others read.
func (b *Backend) AttentionBackward(dq, dk, dv, dout, q, k, v, out, lse, spans kernels.Tensor, h kernels.Heads) {
	T, H, d := q.Rows, h.Count, h.Dim
	const op = "AttentionBackward"
	checkAttention(op, q, k, v, spans, h)
	for name, t := range map[string]kernels.Tensor{"dq": dq, "dout": dout, "out": out} {
		kernels.Want(op, name, t, kernels.F32, T, H*d)
	}
	kernels.Want(op, "dk", dk, kernels.F32, k.Rows, h.KV*d)
	kernels.Want(op, "dv", dv, kernels.F32, k.Rows, h.KV*d)
	kernels.Want(op, "lse", lse, kernels.F32, T, H)
	dqs, dks, dvs, ds := dq.F32s(), dk.F32s(), dv.F32s(), dout.F32s()
	qs, ks, vs, os, ls, sp := q.F32s(), k.F32s(), v.F32s(), out.F32s(), lse.F32s(), spans.I32s()
	scale, stride, group := float32(1/math.Sqrt(float64(d))), h.KV*d, H/h.KV
	clear(dks)
	clear(dvs)
	parts := apart(sp)
	items := h.KV * len(parts)
	b.pool.each(items, grain(H*keys(sp)*(5*d+8)/8/max(1, items)), func(w *worker, lo, hi int) {
		var mean [1]float32
		one := func(t, head int) {
			start, n, item := int(sp[2*t]), int(sp[2*t+1]), t*H+head
			query, grad, dquery := qs[item*d:(item+1)*d], ds[item*d:(item+1)*d], dqs[item*d:(item+1)*d]
			if n == 0 {
				clear(dquery)
				return
			}
			at := start*stride + head/group*d
			p, dp := w.floats(0, n), w.floats(1, n)
			b.loops.scores(p, query, ks[at:], stride, scale)
			b.loops.expSum(p, p, ls[item])
			b.loops.outer(dvs[at:], stride, p, grad)
			b.loops.scores(dp, grad, vs[at:], stride, 1)
			b.loops.scores(mean[:], grad, os[item*d:], 0, 1)
			b.loops.scoreSlope(p, dp, mean[0], scale)
			b.loops.weigh(dquery, p, ks[at:], stride, 1)
			b.loops.outer(dks[at:], stride, p, query)
		}
		for i := lo; i < hi; i++ {
			part, first := parts[i/h.KV], i%h.KV*group
			for t := part[0]; t < part[1]; t++ {
				for head := range group {
					one(t, first+head)
				}
			}
		}
	})
}

// apart cuts queries, by their spans, into runs [from,to) none of which reads a key of another.
func apart(spans []int32) (runs [][2]int) {
	T := len(spans) / 2
	first := make([]int32, T+1) // the first key of those from a query on
	first[T] = math.MaxInt32
	for t := T - 1; t >= 0; t-- {
		if first[t] = first[t+1]; spans[2*t+1] > 0 {
			first[t] = min(first[t], spans[2*t])
		}
	}
	from, end := 0, int32(0)
	for t := range T {
		if end = max(end, spans[2*t]+spans[2*t+1]); first[t+1] >= end {
			runs = append(runs, [2]int{from, t + 1})
			from = t + 1
		}
	}
	return runs
}
