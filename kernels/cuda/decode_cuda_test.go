//go:build cuda

package cuda

import (
	"testing"

	"quartet/kernels"
	"quartet/kernels/conformance"
)

// TestDecode holds the fused step against the operations that it stands for.
func TestDecode(t *testing.T) { conformance.Decode(t, openTest(t, kernels.F16)) }
