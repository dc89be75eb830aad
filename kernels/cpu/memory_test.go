package cpu

import (
	"strings"
	"testing"

	"quartet/kernels"
)

// TestAllocRefuses asks for more memory than any machine has.
func TestAllocRefuses(t *testing.T) {
	_, err := New(Threads(1)).Alloc(kernels.F32, 1<<24, 1<<24)
	if err == nil || strings.Contains(err.Error(), "\n") || !strings.HasPrefix(err.Error(), "reserve 1073741824 MiB for float32[16777216,16777216]: ") {
		t.Errorf("error %v", err)
	}
}

// TestFreeGivesBack requires that a large tensor's memory is mapped and, once freed, gone; views free nothing.
func TestFreeGivesBack(t *testing.T) {
	b := New(Threads(1))
	x, err := b.Alloc(kernels.F32, 512, 512)
	if err != nil {
		t.Fatal(err)
	}
	b.Free(x.Slice(1, 2))
	if x.F32s()[512*512-1] != 0 || len(b.memory.mapped) != 1 {
		t.Errorf("%d mappings after a view was freed", len(b.memory.mapped))
	}
	b.Free(x)
	if len(b.memory.mapped) != 0 {
		t.Errorf("%d mappings after the tensor was freed", len(b.memory.mapped))
	}
}
