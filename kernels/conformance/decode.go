package conformance

import (
	"fmt"
	"math"
	"testing"

	"quartet/kernels"
)

// Decode holds a backend's fused decoding step against the operations it stands for, in float64. Every shape of the table must
// be one that the backend plans: that there is no plan fails the test.
func Decode(t *testing.T, b kernels.Decoder) {
	for _, s := range decodeShapes {
		c := check{"Decode", s.String(), s.check}
		t.Run(c.detail, func(t *testing.T) { newRig(t, b.(kernels.Backend), c).run() })
	}
}

// decodeShape is a small Phi model and where in a sequence it is asked for the next token.
type decodeShape struct {
	D, F, V, layers int
	heads           kernels.Heads
	weights, head   weightKind
	adapted         []int // the linears that have an adapter, indexes into decodeLinears; 6 is the head
	rank            int
	position        int
}

func (s decodeShape) String() string {
	return fmt.Sprintf("%v/%d-%d-%d/%d-%dx%d-%d/adapted%v/at%d", s.weights, s.D, s.F, s.V, s.heads.Count, s.heads.KV, s.heads.Dim, s.heads.Rotary, s.adapted, s.position)
}

var (
	half, brain = weightKind{d: kernels.F16}, weightKind{d: kernels.BF16}
	coded       = weightKind{kernels.NF4, 64, true, kernels.F16}
)

var decodeShapes = []decodeShape{
	{160, 640, 301, 2, kernels.Heads{Count: 2, KV: 2, Dim: 80, Rotary: 32}, half, half, nil, 0, 0},
	{160, 640, 301, 2, kernels.Heads{Count: 2, KV: 2, Dim: 80, Rotary: 32}, half, half, nil, 0, 37},
	{96, 200, 77, 1, kernels.Heads{Count: 3, KV: 1, Dim: 32, Rotary: 0}, half, half, nil, 0, 1},
	{640, 1288, 1000, 2, kernels.Heads{Count: 10, KV: 5, Dim: 64, Rotary: 24}, half, brain, nil, 0, 300},
	{512, 520, 60, 1, kernels.Heads{Count: 4, KV: 4, Dim: 128, Rotary: 128}, brain, half, nil, 0, 1100},
	{320, 1280, 500, 2, kernels.Heads{Count: 5, KV: 5, Dim: 64, Rotary: 32}, coded, half, nil, 0, 5},
	{640, 2560, 500, 2, kernels.Heads{Count: 8, KV: 2, Dim: 80, Rotary: 32}, coded, half, nil, 0, 130},
	{320, 704, 90, 1, kernels.Heads{Count: 4, KV: 4, Dim: 80, Rotary: 32}, weightKind{kernels.NF4, 128, false, kernels.F32}, half, nil, 0, 17},
	{320, 1280, 500, 2, kernels.Heads{Count: 5, KV: 5, Dim: 64, Rotary: 32}, half, half, []int{0, 2}, 8, 5},
	{320, 1280, 500, 2, kernels.Heads{Count: 5, KV: 5, Dim: 64, Rotary: 32}, coded, half, []int{0, 1, 2, 3, 4, 5}, 5, 64},
	{160, 640, 301, 2, kernels.Heads{Count: 2, KV: 2, Dim: 80, Rotary: 32}, half, half, []int{4, 5, 6}, 3, 9},
	{2560, 10240, 1024, 1, kernels.Heads{Count: 32, KV: 32, Dim: 80, Rotary: 32}, half, half, []int{0, 2}, 8, 200},
	{2560, 10240, 1024, 1, kernels.Heads{Count: 32, KV: 32, Dim: 80, Rotary: 32}, coded, half, []int{3}, 16, 200},
}

// hostLinear and hostLayer are the reference's copies of what the backend was given.
type hostLinear struct {
	weight, bias, a, b []float64
	rows, cols, rank   int
	scale              float64
}

func (l hostLinear) apply(x []float64) []float64 {
	out := sum(product(x, l.weight, 1, l.cols, l.rows, true), l.bias)
	if l.rank > 0 {
		low := product(x, l.a, 1, l.cols, l.rank, true)
		for i, v := range product(low, l.b, 1, l.rank, l.rows, true) {
			out[i] += l.scale * v
		}
	}
	return out
}

type hostLayer struct {
	norm         [2][]float64
	linears      [6]hostLinear
	keys, values []float64
}

func (s decodeShape) check(r *rig) {
	const sequences, ahead = 2, 11 // tokens chosen after the first; more than a plan does at once
	h, capacity := s.heads, s.position+ahead+2
	rows := [6]int{h.Count * h.Dim, h.KV * h.Dim, h.KV * h.Dim, s.D, s.F, s.D}
	cols := [6]int{s.D, s.D, s.D, h.Count * h.Dim, s.D, s.F}
	linear := func(at int, kind weightKind, rows, cols int) (kernels.DecodeLinear, hostLinear) {
		var d kernels.DecodeLinear
		l := hostLinear{rows: rows, cols: cols}
		d.Weight, l.weight = r.weight(kind, rows, cols)
		d.Bias, l.bias = r.put(kernels.F16, 1, rows, r.normal(rows, 0.1))
		for _, adapted := range s.adapted {
			if adapted == at {
				l.rank, l.scale, d.Scale = s.rank, 0.5, 0.5
				d.A, l.a = r.put(kernels.F32, s.rank, cols, r.normal(s.rank*cols, 0.1))
				d.B, l.b = r.put(kernels.F32, rows, s.rank, r.normal(rows*s.rank, 0.1))
			}
		}
		return d, l
	}
	m := kernels.DecodeModel{Heads: h, Eps: epsilon}
	var embed, table []float64
	m.Embed, embed = r.put(kernels.F16, s.V, s.D, r.normal(s.V*s.D, 1))
	if h.Rotary > 0 {
		m.Rotary, table = r.put(kernels.F32, capacity, h.Rotary, angles(capacity, h.Rotary))
	}
	vectors := func() (w, b kernels.Tensor, host [2][]float64) {
		w, host[0] = r.put(kernels.F16, 1, s.D, shifted(r.normal(s.D, 0.1), 1))
		b, host[1] = r.put(kernels.F16, 1, s.D, r.normal(s.D, 0.1))
		return w, b, host
	}
	layers := make([]hostLayer, s.layers)
	for i := range layers {
		var l kernels.DecodeLayer
		l.NormWeight, l.NormBias, layers[i].norm = vectors()
		for at, into := range []*kernels.DecodeLinear{&l.Q, &l.K, &l.V, &l.Dense, &l.FC1, &l.FC2} {
			*into, layers[i].linears[at] = linear(at, s.weights, rows[at], cols[at])
		}
		l.Keys, layers[i].keys = r.random(kernels.F16, sequences*capacity, h.KV*h.Dim)
		l.Values, layers[i].values = r.random(kernels.F16, sequences*capacity, h.KV*h.Dim)
		m.Layers = append(m.Layers, l)
	}
	var final [2][]float64
	m.NormWeight, m.NormBias, final = vectors()
	var head hostLinear
	m.Head, head = linear(6, s.head, s.V, s.D)

	const first = 1
	step := func(token int32, position int) []float64 {
		x := append([]float64(nil), embed[int(token)*s.D:][:s.D]...)
		for i := range layers {
			l := &layers[i]
			normed := norm(x, l.norm[0], l.norm[1])
			q, k, v := l.linears[0].apply(normed), l.linears[1].apply(normed), l.linears[2].apply(normed)
			if h.Rotary > 0 {
				q, k = rotary(q, []int32{int32(position)}, table, h, 1), rotary(k, []int32{int32(position)}, table, h, 1)
			}
			copy(l.keys[(first*capacity+position)*len(k):], round(kernels.F16, k))
			copy(l.values[(first*capacity+position)*len(v):], round(kernels.F16, v))
			attended, _ := attention(q, l.keys, l.values, []int32{int32(first * capacity), int32(position + 1)}, h)
			x = sum(sum(x, l.linears[3].apply(attended)), l.linears[5].apply(each(l.linears[4].apply(normed), gelu)))
		}
		return head.apply(norm(x, final[0], final[1]))
	}

	d, err := r.b.(kernels.Decoder).NewDecode(m)
	if err != nil || d == nil {
		r.Fatalf("no plan: %v", err)
	}
	defer d.Free()
	const limit = 4e-3 // of the largest logit: the activations between the kernels are halves
	token, logits := int32(s.V-1), make([]float32, s.V)
	if err := d.Logits(logits, token, first*capacity, s.position); err != nil {
		r.Fatal(err)
	}
	want := step(token, s.position)
	largest := 0.0
	for i, w := range want {
		largest = max(largest, math.Abs(w))
		if math.IsNaN(float64(logits[i])) {
			r.Fatalf("logit %d is %v", i, logits[i])
		}
	}
	worst := 0.0
	for i, w := range want {
		worst = max(worst, math.Abs(float64(logits[i])-w)/largest)
	}
	if !(worst <= limit) {
		r.Errorf("logits are off by %.3g of the largest, the limit is %.3g", worst, limit)
	}

	// Two thirds of the vocabulary are allowed, and half of those are seen.
	allowed, seen := make([]uint32, (s.V+31)/32), make([]uint32, (s.V+31)/32)
	for i := range s.V {
		if i%3 > 0 {
			allowed[i/32] |= 1 << (i % 32)
		}
		if i%2 > 0 {
			seen[i/32] |= 1 << (i % 32)
		}
	}
	const penalty = 1.5
	if err := d.Choose(kernels.Choice{Allowed: allowed, Penalty: penalty, Seen: seen}); err != nil {
		r.Fatal(err)
	}
	chosen, again := make([]int32, ahead), make([]int32, ahead)
	if err := d.Greedy(chosen, token, first*capacity, s.position); err != nil {
		r.Fatal(err)
	}
	at := token
	for n, id := range chosen {
		want := step(at, s.position+n)
		best := math.Inf(-1)
		for i := range want {
			if seen[i/32]>>(i%32)&1 > 0 {
				want[i] = min(want[i]*penalty, want[i]/penalty)
			}
			if allowed[i/32]>>(i%32)&1 > 0 {
				best = max(best, want[i])
			}
		}
		if id < 0 || int(id) >= s.V || id%3 == 0 || want[id] < best-2*limit*penalty*largest {
			r.Fatalf("choice %d is token %d, which is not the likeliest that is allowed", n, id)
		}
		seen[id/32] |= 1 << (id % 32)
		at = id
	}
	for i := range seen {
		seen[i] = 0
		for n := range 32 {
			if (32*i+n)%2 > 0 && 32*i+n < s.V {
				seen[i] |= 1 << n
			}
		}
	}
	if err := d.Choose(kernels.Choice{Allowed: allowed, Penalty: penalty, Seen: seen}); err != nil {
		r.Fatal(err)
	}
	if err := d.Greedy(again, token, first*capacity, s.position); err != nil {
		r.Fatal(err)
	}
	for n := range chosen {
		if chosen[n] != again[n] {
			r.Errorf("choice %d is %d and then %d", n, chosen[n], again[n])
		}
	}
}
