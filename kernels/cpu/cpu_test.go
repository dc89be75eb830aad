package cpu

import (
	"testing"

	"quartet/kernels/conformance"
)

func TestConformance(t *testing.T) {
	t.Run("plain", func(t *testing.T) { conformance.Run(t, New(Plain, Threads(3))) })
	t.Run("vector", func(t *testing.T) {
		if bestLoops() == &plainLoops {
			t.Skip("this processor has no AVX2, FMA and F16C")
		}
		conformance.Run(t, New(Threads(2)))
	})
	t.Run("avx512", func(t *testing.T) {
		needAVX512(t)
		conformance.Run(t, New(AVX512, Threads(2)))
	})
}

// TestThreads requires results that don't depend on how many threads share the work.
func TestThreads(t *testing.T) {
	conformance.Same(t, New(Threads(1)), New(Threads(5)))
	t.Run("avx512", func(t *testing.T) {
		needAVX512(t)
		conformance.Same(t, New(AVX512, Threads(1)), New(AVX512, Threads(5)))
	})
}

func needAVX512(t *testing.T) {
	if wideLoops() == nil {
		t.Skip("this processor has no AVX-512 F, BW, DQ and VL")
	}
}
