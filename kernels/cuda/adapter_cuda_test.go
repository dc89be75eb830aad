//go:build cuda

package cuda

import (
	"fmt"
	"testing"

	"quartet/kernels"
)

// BenchmarkThin is how fast LoRA's products move the large operand, whose bytes alone count.
func BenchmarkThin(bench *testing.B) {
	b := openTest(bench, kernels.F16)
	for _, s := range []struct{ T, K, r int }{{1024, 2560, 8}, {4096, 2560, 8}, {4096, 2560, 64}, {4096, 10240, 16}} {
		sets := max(2, 12*1024*2560/(s.T*s.K))
		var x, out [12]kernels.Tensor
		for i := range sets {
			x[i], out[i] = noise(bench, b, kernels.F16, s.T, s.K), noise(bench, b, kernels.F16, s.T, s.K)
		}
		a, c, low := noise(bench, b, kernels.F32, s.r, s.K), noise(bench, b, kernels.F32, s.K, s.r), noise(bench, b, kernels.F16, s.T, s.r)
		gradA, gradC, wide := noise(bench, b, kernels.F32, s.r, s.K), noise(bench, b, kernels.F32, s.K, s.r), 2*s.T*s.K
		run := func(name string, bytes int, call func(i int)) {
			bench.Run(fmt.Sprintf("%s/%dx%d/%d", name, s.T, s.K, s.r), func(tb *testing.B) { replays(tb, b, bytes, call) })
		}
		run("low", wide, func(i int) { b.MatMul(low, x[i%sets], a, false, true, 1, 0) })
		run("dlow", wide, func(i int) { b.MatMul(low, x[i%sets], c, false, false, 1, 0) })
		run("out", 2*wide, func(i int) { b.MatMul(out[i%sets], low, c, false, true, 1, 1) })
		run("dx", 2*wide, func(i int) { b.MatMul(out[i%sets], low, a, false, false, 1, 1) })
		run("gradA", wide, func(i int) { b.MatMul(gradA, low, x[i%sets], true, false, 1, 1) })
		run("gradB", wide, func(i int) { b.MatMul(gradC, x[i%sets], low, true, false, 1, 1) })
	}
}

// BenchmarkAdam is a step over the 128 matrices of an adapter of rank 8.
func BenchmarkAdam(bench *testing.B) {
	b := openTest(bench, kernels.F16)
	const n, blocks = 8 * 2560, 8 * 2560 / kernels.AdamBlock
	param, grad, m, v := noise(bench, b, kernels.F32, 1, n), noise(bench, b, kernels.F32, 1, n), noise(bench, b, kernels.F32, 1, n), noise(bench, b, kernels.F32, 1, n)
	state1, err := b.Alloc(kernels.U8, 1, 2*n)
	if err != nil {
		bench.Fatal(err)
	}
	defer b.Free(state1)
	codes := state1.Reshape(2, n)
	absmax := noise(bench, b, kernels.F32, 2, blocks)
	step := kernels.AdamStep{LR: 1e-3, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, GradScale: 1, T: 1}
	for name, call := range map[string]func(){
		"float32": func() { b.AdamW(param, grad, m, v, step) },
		"8bit": func() {
			b.AdamW8bit(param, grad, codes.Slice(0, 1), absmax.Slice(0, 1), codes.Slice(1, 2), absmax.Slice(1, 2), step)
		},
	} {
		bench.Run(name, func(tb *testing.B) {
			for tb.Loop() {
				for range 128 {
					call()
				}
				if err := b.Sync(); err != nil {
					tb.Fatal(err)
				}
			}
		})
	}
}
