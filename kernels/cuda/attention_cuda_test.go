//go:build cuda

package cuda

import (
	"fmt"
	"testing"

	"quartet/kernels"
)

// spansOf is the packed causal rows of the given lengths: how many keys are read in all, and the table of spans.
func spansOf(tb testing.TB, b *Backend, lengths ...int) (pairs int, spans kernels.Tensor) {
	var table []int32
	for _, n := range lengths {
		for first, i := int32(len(table)/2), 0; i < n; i++ {
			table = append(table, first, int32(i+1))
			pairs += i + 1
		}
	}
	return pairs, upload(tb, b, table)
}

func upload(tb testing.TB, b *Backend, table []int32) kernels.Tensor {
	tb.Helper()
	t, err := b.Import(kernels.HostTensor(kernels.I32, len(table)/2, 2, kernels.AsBytes(table)))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { b.Free(t) })
	return t
}

// BenchmarkAttention is the rate of attention's products at phi-2's heads, those above the diagonal not counted, beside that of a
// large product of matrices; and how fast keys and values of a cache are read for one new token of each sequence.
func BenchmarkAttention(bench *testing.B) {
	h := kernels.Heads{Count: 32, KV: 32, Dim: 80}
	D := h.Count * h.Dim
	b := openTest(bench, kernels.F16)
	var peak float64
	bench.Run("product", func(tb *testing.B) {
		const T = 4096
		x, w, out := noise(tb, b, kernels.F16, T, D), noise(tb, b, kernels.F16, 4*D, D), noise(tb, b, kernels.F16, T, 4*D)
		peak = float64(2*T*D*4*D) / perCall(tb, b, func(int) { b.Linear(out, x, w, kernels.Tensor{}) })
		tb.ReportMetric(peak/1e12, "TFLOP/s")
	})
	const sets = 3 // of operands, so that the cache holds little of the next
	for _, s := range []struct{ rows, length int }{{16, 256}, {1, 1024}, {1, 2048}, {8, 512}} {
		T := s.rows * s.length
		lengths := make([]int, s.rows)
		for i := range lengths {
			lengths[i] = s.length
		}
		pairs, spans := spansOf(bench, b, lengths...)
		var x [sets][8]kernels.Tensor
		var lse [sets]kernels.Tensor
		for i := range sets {
			for n := range x[i] {
				x[i][n] = noise(bench, b, kernels.F16, T, D)
			}
			lse[i] = noise(bench, b, kernels.F32, T, h.Count)
		}
		run := func(pass string, products int, call func(x [8]kernels.Tensor, lse kernels.Tensor)) {
			bench.Run(fmt.Sprintf("%s/%dx%d", pass, s.rows, s.length), func(tb *testing.B) {
				rate := float64(products*2*pairs*D) / perCall(tb, b, func(i int) { call(x[i%sets], lse[i%sets]) })
				tb.ReportMetric(rate/1e12, "TFLOP/s")
				tb.ReportMetric(100*rate/peak, "%-of-product")
			})
		}
		run("forward", 2, func(x [8]kernels.Tensor, lse kernels.Tensor) { b.Attention(x[0], lse, x[1], x[2], x[3], spans, h) })
		run("backward", 5, func(x [8]kernels.Tensor, lse kernels.Tensor) {
			b.AttentionBackward(x[4], x[5], x[6], x[7], x[1], x[2], x[3], x[0], lse, spans, h)
		})
	}
	for _, s := range []struct{ sequences, capacity, length int }{{1, 2048, 1024}, {8, 2048, 1024}, {32, 1024, 700}} {
		var table []int32
		for i := range s.sequences {
			table = append(table, int32(i*s.capacity), int32(s.length))
		}
		spans := upload(bench, b, table)
		var keys, values [sets]kernels.Tensor
		for i := range sets {
			keys[i], values[i] = noise(bench, b, kernels.F16, s.sequences*s.capacity, D), noise(bench, b, kernels.F16, s.sequences*s.capacity, D)
		}
		q, out := noise(bench, b, kernels.F16, s.sequences, D), noise(bench, b, kernels.F16, s.sequences, D)
		bench.Run(fmt.Sprintf("decode/%dx%d", s.sequences, s.length), func(tb *testing.B) {
			each := perCall(tb, b, func(i int) { b.Attention(out, kernels.Tensor{}, q, keys[i%sets], values[i%sets], spans, h) })
			tb.ReportMetric(float64(2*2*s.sequences*s.length*D)/each/1e9, "GB/s")
		})
	}
}
