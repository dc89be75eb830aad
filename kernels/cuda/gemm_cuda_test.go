//go:build cuda

package cuda

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"quartet/kernels"
)

// TestTiles holds the product on tensor cores against the one of any types.
func TestTiles(t *testing.T) {
	for _, act := range []kernels.DType{kernels.F16, kernels.BF16} {
		tileProducts(t, openTest(t, act))
	}
}

func tileProducts(t *testing.T, b *Backend) {
	for _, s := range []struct{ M, N, K int }{{1, 8, 8}, {3, 40, 24}, {130, 136, 200}, {257, 24, 520}} {
		for _, transposed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v/%dx%dx%d/%t", b.act, s.M, s.N, s.K, transposed), func(t *testing.T) {
				v := &thinCheck{t, b, rand.New(rand.NewPCG(1, uint64(s.M*s.K)))}
				n := s.N
				x, y := v.noise(b.act, s.M, s.K), v.noise(b.act, s.K, n)
				if transposed {
					n -= 3 // any number of columns does
					y = v.noise(b.act, n, s.K)
				}
				out, bias := v.noise(b.act, s.M, n), v.noise(b.act, 1, n)
				for _, with := range []kernels.Tensor{{}, bias} {
					for _, beta := range []float32{0, 1} {
						v.same("out", out, func(out kernels.Tensor) {
							if !b.tiles(out, x, y, false, transposed, 0.5, beta, with) {
								t.Error("not done")
							}
						}, func(out kernels.Tensor) { b.gemmAny(out, x, y, false, transposed, 0.5, beta, with) })
					}
				}
			})
		}
	}
}

// BenchmarkTiles is phi-2's products without cuBLASLt, in TFLOP/s.
func BenchmarkTiles(bench *testing.B) {
	b := openTest(bench, kernels.F16)
	for _, s := range []struct{ M, K, N int }{{1024, 2560, 2560}, {1024, 2560, 10240}, {4096, 2560, 10240}} {
		for _, transposed := range []bool{false, true} {
			bench.Run(fmt.Sprintf("%dx%dx%d/%t", s.M, s.K, s.N, transposed), func(tb *testing.B) {
				x, y, out := noise(tb, b, kernels.F16, s.M, s.K), noise(tb, b, kernels.F16, s.K, s.N), noise(tb, b, kernels.F16, s.M, s.N)
				if transposed {
					y = y.Reshape(s.N, s.K)
				}
				const times = 20
				for tb.Loop() {
					for range times {
						b.tiles(out, x, y, false, transposed, 1, 0, kernels.Tensor{})
					}
					if err := b.Sync(); err != nil {
						tb.Fatal(err)
					}
				}
				tb.ReportMetric(2*times*float64(s.M)*float64(s.K)*float64(s.N)*float64(tb.N)/tb.Elapsed().Seconds()/1e12, "TFLOP/s")
			})
		}
	}
}
