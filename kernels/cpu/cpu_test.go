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
}

// TestThreads requires results that don't depend on how many threads share the work.
func TestThreads(t *testing.T) {
	conformance.Same(t, New(Threads(1)), New(Threads(5)))
}
