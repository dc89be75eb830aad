package cpu

import (
	"sync"
	"testing"
)

// BenchmarkPeak is what the processor can do at most: products in registers, on all threads.
func BenchmarkPeak(b *testing.B) {
	threads := len(New().pool.workers)
	const steps = 1 << 20
	for b.Loop() {
		var all sync.WaitGroup
		for range threads {
			all.Go(func() { fmaLoop(steps) })
		}
		all.Wait()
	}
	rates(b, threads*steps*12*16, 0)
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
