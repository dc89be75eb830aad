//go:build cuda

package cuda

import (
	"testing"

	"quartet/kernels"
	"quartet/kernels/conformance"
)

func TestConformance(t *testing.T) {
	for _, act := range []kernels.DType{kernels.F32, kernels.F16, kernels.BF16} {
		t.Run(act.String(), func(t *testing.T) { conformance.Run(t, openTest(t, act)) })
	}
}

// TestRepeats requires the bytes of a second backend to be those of the first: no result depends on timing.
func TestRepeats(t *testing.T) {
	conformance.Same(t, openTest(t, kernels.F16), openTest(t, kernels.F16))
}
