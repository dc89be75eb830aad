package cpu

import (
	"sync"
	"testing"
)

// BenchmarkPeak is what the processor can do at most: products in registers, on all threads.
func BenchmarkPeak(b *testing.B) {
	peak := func(b *testing.B, loop func(n int), width int) {
		threads := len(New().pool.workers)
		const steps = 1 << 20
		for b.Loop() {
			var all sync.WaitGroup
			for range threads {
				all.Go(func() { loop(steps) })
			}
			all.Wait()
		}
		rates(b, threads*steps*12*2*width, 0)
	}
	b.Run("avx2", func(b *testing.B) { peak(b, fmaLoop, 8) })
	if loopsOf(AVX512) != nil {
		b.Run("avx512", func(b *testing.B) { peak(b, wideFMALoop, 16) })
	}
}

// BenchmarkBandwidth is how fast all threads read memory at most, with the cheapest of kernels.
func BenchmarkBandwidth(b *testing.B) {
	cpu := New()
	x := operand(b, cpu, 0, 1<<14, 1<<13)
	xs := x.F32s()
	for b.Loop() {
		cpu.pool.each(len(xs), flat, func(_ *worker, lo, hi int) { maxAbs(hi-lo, &xs[lo]) })
	}
	rates(b, 0, x.Bytes())
}
