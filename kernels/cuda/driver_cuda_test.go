//go:build cuda

package cuda

import (
	"testing"

	"quartet/kernels"
)

// openTest is a backend on the first GPU, closed when the test ends. These tests need one: that there is none fails them.
func openTest(t testing.TB, act kernels.DType) *Backend {
	t.Helper()
	b, err := Open(0, act)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}
