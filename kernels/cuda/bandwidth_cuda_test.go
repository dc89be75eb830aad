//go:build cuda

package cuda

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"quartet/kernels"
)

// noise fills a float tensor with normal numbers.
func noise(tb testing.TB, b *Backend, d kernels.DType, rows, cols int) kernels.Tensor {
	tb.Helper()
	t, err := b.Alloc(d, rows, cols)
	if err != nil {
		tb.Fatal(err)
	}
	source := rand.New(rand.NewPCG(1, 2))
	values := make([]float32, 1<<16)
	for i := range values {
		values[i] = float32(source.NormFloat64())
	}
	wide, err := b.Import(kernels.HostTensor(kernels.F32, len(values), 1, kernels.AsBytes(values)))
	if err != nil {
		tb.Fatal(err)
	}
	flat := t.Reshape(t.Len(), 1)
	for from := 0; from < flat.Rows; from += len(values) {
		n := min(len(values), flat.Rows-from)
		b.Copy(flat.Slice(from, from+n), wide.Slice(0, n))
	}
	b.Free(wide)
	tb.Cleanup(func() { b.Free(t) })
	return t
}

// replays times an operation that moves bytes.
func replays(tb *testing.B, b *Backend, bytes int, call func(i int)) {
	tb.Helper()
	tb.ReportMetric(float64(bytes)/perCall(tb, b, call)/1e12, "TB/s")
}

// perCall is the seconds that an operation takes, of many queued at a time over changing operands, so that the cache holds little of them.
func perCall(tb *testing.B, b *Backend, call func(i int)) float64 {
	tb.Helper()
	const calls = 24
	queue := func(times int) {
		for range times {
			for i := range calls {
				call(i)
			}
		}
		if err := b.Sync(); err != nil {
			tb.Fatal(err)
		}
	}
	queue(3) // scratch is reserved, clocks rise
	for tb.Loop() {
		queue(4)
	}
	each := tb.Elapsed().Seconds() / float64(tb.N*4*calls)
	tb.ReportMetric(0, "ns/op")
	tb.ReportMetric(each*1e6, "µs/call")
	return each
}

// BenchmarkBandwidth is how fast the operations that are bound by memory move what they must, at phi-2's sizes.
func BenchmarkBandwidth(bench *testing.B) {
	const D, F, V = 2560, 10240, 51200
	h := kernels.Heads{Count: 32, KV: 32, Dim: 80, Rotary: 32}
	b := openTest(bench, kernels.F16)
	run := func(name string, bytes int, call func(i int)) {
		bench.Run(name, func(tb *testing.B) { replays(tb, b, bytes, call) })
	}
	weight, bias := noise(bench, b, kernels.F16, 1, D), noise(bench, b, kernels.F16, 1, D)
	for _, T := range []int{1024, 4096} {
		sets := 3 * 4096 / T
		var x, y, z, wide, gradient, stats [12]kernels.Tensor
		for i := range sets {
			x[i], y[i], z[i] = noise(bench, b, kernels.F16, T, D), noise(bench, b, kernels.F16, T, D), noise(bench, b, kernels.F16, T, D)
			wide[i], gradient[i] = noise(bench, b, kernels.F16, T, F), noise(bench, b, kernels.F16, T, F)
			stats[i] = noise(bench, b, kernels.F32, T, 2)
		}
		ints := make([]int32, 2*T)
		for i := range ints {
			ints[i] = int32(i)
		}
		numbers, err := b.Import(kernels.HostTensor(kernels.I32, T, 2, kernels.AsBytes(ints)))
		if err != nil {
			bench.Fatal(err)
		}
		rows := numbers.Reshape(2*T, 1).Slice(0, T).Reshape(1, T)
		angles := noise(bench, b, kernels.F32, T, h.Rotary)
		narrow, broad := 2*T*D, 2*T*F
		at := func(name string) string { return fmt.Sprintf("%s/%d", name, T) }
		run(at("Zero"), narrow, func(i int) { b.Zero(x[i%sets]) })
		run(at("Copy"), 2*narrow, func(i int) { b.Copy(x[i%sets], y[i%sets]) })
		run(at("Add"), 3*narrow, func(i int) { b.Add(x[i%sets], y[i%sets], z[i%sets]) })
		run(at("Gelu"), 2*broad, func(i int) { b.Gelu(gradient[i%sets], wide[i%sets]) })
		run(at("GeluBackward"), 3*broad, func(i int) { b.GeluBackward(gradient[i%sets], gradient[i%sets], wide[i%sets]) })
		run(at("LayerNorm"), 2*narrow, func(i int) { b.LayerNorm(x[i%sets], stats[i%sets], y[i%sets], weight, bias, 1e-5) })
		run(at("LayerNormBackward"), 4*narrow, func(i int) { b.LayerNormBackward(x[i%sets], y[i%sets], z[i%sets], weight, stats[i%sets]) })
		run(at("Rotary"), 2*narrow*h.Rotary/h.Dim, func(i int) { b.Rotary(x[i%sets], rows, angles, h, false) })
		run(at("Dropout"), 2*narrow, func(i int) { b.Dropout(x[i%sets], y[i%sets], numbers, 0.05, kernels.DropoutKey{Seed: 7}) })
		run(at("Gather"), 2*narrow, func(i int) { b.Gather(x[i%sets], y[i%sets], rows) })
		drop := kernels.Drop{Tokens: numbers, P: 0.1, Key: kernels.DropoutKey{Seed: 7}}
		for name, d := range map[string]kernels.Drop{"AddNorm": {}, "AddNorm/dropout": drop} {
			run(at(name), 5*narrow, func(i int) {
				b.AddNorm(x[i%sets], y[i%sets], stats[i%sets], x[i%sets], kernels.Branch{X: y[i%sets], Drop: d}, kernels.Branch{X: z[i%sets], Drop: d}, weight, bias, 1e-5)
			})
		}
		b.Free(numbers)
	}
	const T = 655
	logits, losses := [2]kernels.Tensor{noise(bench, b, kernels.F16, T, V), noise(bench, b, kernels.F16, T, V)}, noise(bench, b, kernels.F32, 1, T)
	labels, err := b.Alloc(kernels.I32, 1, T)
	if err != nil {
		bench.Fatal(err)
	}
	run("CrossEntropy", 2*2*T*V, func(i int) { b.CrossEntropy(losses, logits[i%2], logits[i%2], labels, 1) })
	run("CrossEntropy/losses", 2*T*V, func(i int) { b.CrossEntropy(losses, kernels.Tensor{}, logits[i%2], labels, 1) })
	gradients, sum := noise(bench, b, kernels.F32, 1, 1<<26), noise(bench, b, kernels.F32, 1, 1)
	run("SumSquares", 4<<26, func(int) { b.SumSquares(sum, gradients) })
}
