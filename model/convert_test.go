package model

import (
	"encoding/binary"
	"math"
	"testing"

	"quartet/kernels"
)

func TestFinite(t *testing.T) {
	narrow := map[kernels.DType]func(float32) []byte{
		kernels.F16:  func(v float32) []byte { return binary.LittleEndian.AppendUint16(nil, kernels.F32ToF16(v)) },
		kernels.BF16: func(v float32) []byte { return binary.LittleEndian.AppendUint16(nil, kernels.F32ToBF16(v)) },
		kernels.F32:  func(v float32) []byte { return binary.LittleEndian.AppendUint32(nil, math.Float32bits(v)) },
	}
	inf := float32(math.Inf(1))
	for d, bytes := range narrow {
		for v, want := range map[float32]bool{0: true, -1: true, 65504: true, 1e-40: true, inf: false, -inf: false} {
			if got := finite(d, append(bytes(2), bytes(v)...)); got != want {
				t.Errorf("%v %g counts as finite: %t, not %t", d, v, got, want)
			}
		}
		if finite(d, append(bytes(float32(math.NaN())), bytes(2)...)) {
			t.Errorf("%v NaN counts as finite", d)
		}
	}
	if !finite(kernels.F32, narrow[kernels.F32](math.MaxFloat32)) {
		t.Error("the largest float32 counts as infinite")
	}
}
