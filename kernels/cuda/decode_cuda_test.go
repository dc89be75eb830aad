//go:build cuda

package cuda

import (
	"testing"

	"quartet/kernels"
	"quartet/kernels/conformance"
)

// TestDecode holds the fused step against the operations that it stands for.
func TestDecode(t *testing.T) { conformance.Decode(t, openTest(t, kernels.F16)) }

// BenchmarkDecode is tokens of a model of phi-2's shape with random weights, 100 after 32, and how much of the time their bytes
// alone would take at the speed of a copy on an H200, 4.27 TB/s.
func BenchmarkDecode(tb *testing.B) {
	for _, d := range []kernels.DType{kernels.F16, kernels.NF4} {
		tb.Run(d.String(), func(tb *testing.B) {
			const tokens, prompt = 100, 32
			b := openTest(tb, kernels.F16)
			m, bytes := randomPhi(tb, b, d)
			step, err := b.NewDecode(m)
			if err != nil || step == nil {
				tb.Fatal(step, err)
			}
			defer step.Free()
			chosen := make([]int32, tokens)
			for tb.Loop() {
				if err := step.Greedy(chosen, 1, 0, prompt); err != nil {
					tb.Fatal(err)
				}
			}
			speed := float64(tokens*tb.N) / tb.Elapsed().Seconds()
			tb.ReportMetric(speed, "tokens/s")
			tb.ReportMetric(100*speed*float64(bytes)/4.27e12, "%floor")
		})
	}
}

// randomPhi is a model of phi-2's shape with linears of a type, an empty cache, and the bytes of the weights that a token needs.
func randomPhi(tb testing.TB, b *Backend, d kernels.DType) (m kernels.DecodeModel, bytes int) {
	const D, F, V, layers, positions = 2560, 10240, 51200, 32, 256
	vector := func(n int) kernels.Tensor { return noise(tb, b, kernels.F16, 1, n) }
	linear := func(d kernels.DType, rows, cols int) kernels.DecodeLinear {
		l := kernels.DecodeLinear{Weight: noise(tb, b, kernels.F16, rows, cols), Bias: vector(rows)}
		if d == kernels.NF4 {
			packed := emptyNF4(tb, b, rows, cols, 64, kernels.F16, true)
			b.QuantizeNF4(packed, l.Weight)
			l.Weight = packed
		}
		bytes += l.Weight.Bytes()
		return l
	}
	m = kernels.DecodeModel{Heads: phi, Eps: 1e-5, Embed: noise(tb, b, kernels.F16, V, D), NormWeight: vector(D), NormBias: vector(D), Head: linear(kernels.F16, V, D),
		Rotary: noise(tb, b, kernels.F32, positions, phi.Rotary)}
	for range layers {
		m.Layers = append(m.Layers, kernels.DecodeLayer{
			NormWeight: vector(D), NormBias: vector(D), Q: linear(d, D, D), K: linear(d, D, D), V: linear(d, D, D), Dense: linear(d, D, D), FC1: linear(d, F, D), FC2: linear(d, D, F),
			Keys: noise(tb, b, kernels.F16, positions, D), Values: noise(tb, b, kernels.F16, positions, D),
		})
	}
	return m, bytes
}
