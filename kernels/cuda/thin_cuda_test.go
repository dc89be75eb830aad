//go:build cuda

package cuda

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"quartet/kernels"
)

// TestThin holds the thin products against the product of any types, at sizes where they do several rounds.
func TestThin(t *testing.T) {
	for _, act := range []kernels.DType{kernels.F16, kernels.BF16} {
		thinProducts(t, openTest(t, act))
	}
}

func thinProducts(t *testing.T, b *Backend) {
	drop := kernels.Drop{P: 0.1, Key: kernels.DropoutKey{Seed: 5, Step: 7, Layer: 3, Site: 1}}
	for _, s := range []struct{ T, K, r int }{{1, 8, 1}, {17, 264, 2}, {300, 520, 8}, {300, 72, 16}, {529, 264, 24}, {40, 2560, 48}, {300, 136, 64}, {2061, 40, 8}, {2061, 48, 40}} {
		for _, p := range []float32{0, 0.1} {
			t.Run(fmt.Sprintf("%v/%dx%dx%d/%v", b.act, s.T, s.K, s.r, p), func(t *testing.T) {
				v := &thinCheck{t, b, rand.New(rand.NewPCG(1, uint64(s.T*s.K*s.r)))}
				drop.P = p
				drop.Tokens = v.tokens(s.T)
				x, low := v.noise(b.act, s.T, s.K), v.noise(b.act, s.T, s.r)
				masked := v.noise(b.act, s.T, s.K)
				v.b.Dropout(masked, x, drop.Tokens, p, drop.Key)
				a, c := v.noise(kernels.F32, s.r, s.K), v.noise(kernels.F32, s.K, s.r)
				v.same("low", low, func(out kernels.Tensor) { b.thinLow(thinLow{out, x, a, true, 0.5, 0.25, drop}) },
					func(out kernels.Tensor) { b.gemm(out, masked, a, false, true, 0.5, 0.25, kernels.Tensor{}) })
				v.same("low, y by columns", low, func(out kernels.Tensor) { b.thinLow(thinLow{out, x, c, false, 2, 0, drop}) },
					func(out kernels.Tensor) { b.gemm(out, masked, c, false, false, 2, 0, kernels.Tensor{}) })
				over := v.noise(kernels.F32, s.r, s.K)
				v.same("over", over, func(out kernels.Tensor) { b.thinOver(thinOver{out, low, x, false, 0.5, 1, drop}) },
					func(out kernels.Tensor) { b.gemm(out, low, masked, true, false, 0.5, 1, kernels.Tensor{}) })
				across := v.noise(kernels.F32, s.K, s.r)
				v.same("over, by columns", across, func(out kernels.Tensor) { b.thinOver(thinOver{out, low, x, true, 0.5, 0, drop}) },
					func(out kernels.Tensor) { b.gemm(out, masked, low, true, false, 0.5, 0, kernels.Tensor{}) })
				if s.r%2 != 0 {
					return
				}
				v.same("spread", x, func(out kernels.Tensor) { b.thinSpread(1, thinSpread{out, low, c, true, 0.5, drop}) }, func(out kernels.Tensor) {
					b.gemm(masked, low, c, false, true, 0.5, 0, kernels.Tensor{})
					b.Dropout(masked, masked, drop.Tokens, p, drop.Key)
					b.Add(out, out, masked)
				})
				v.same("spread, y by rows", x, func(out kernels.Tensor) { b.thinSpread(0, thinSpread{out, low, a, false, 0.5, drop}) }, func(out kernels.Tensor) {
					b.gemm(out, low, a, false, false, 0.5, 0, kernels.Tensor{})
					b.Dropout(out, out, drop.Tokens, p, drop.Key)
				})
			})
		}
	}
}

// thinCheck makes operands and compares what two ways leave in an output.
type thinCheck struct {
	*testing.T
	b    *Backend
	rand *rand.Rand
}

func (v *thinCheck) noise(d kernels.DType, rows, cols int) kernels.Tensor {
	v.Helper()
	values := make([]float32, rows*cols)
	for i := range values {
		values[i] = float32(v.rand.NormFloat64())
	}
	wide, err := v.b.Import(kernels.HostTensor(kernels.F32, rows, cols, kernels.AsBytes(values)))
	if err != nil {
		v.Fatal(err)
	}
	t, err := v.b.Alloc(d, rows, cols)
	if err != nil {
		v.Fatal(err)
	}
	v.b.Copy(t, wide)
	v.b.Free(wide)
	v.Cleanup(func() { v.b.Free(t) })
	return t
}

func (v *thinCheck) tokens(n int) kernels.Tensor {
	v.Helper()
	at := make([]int32, 2*n)
	for i := range at {
		at[i] = int32(v.rand.Uint32())
	}
	t, err := v.b.Import(kernels.HostTensor(kernels.I32, n, 2, kernels.AsBytes(at)))
	if err != nil {
		v.Fatal(err)
	}
	v.Cleanup(func() { v.b.Free(t) })
	return t
}

// same requires two ways of changing a copy of a tensor to agree but for rounding.
func (v *thinCheck) same(name string, out kernels.Tensor, one, other func(out kernels.Tensor)) {
	v.Helper()
	var results [2][]float32
	for i, way := range []func(kernels.Tensor){one, other} {
		own, wide := v.noise(out.DType, out.Rows, out.Cols), v.noise(kernels.F32, out.Rows, out.Cols)
		v.b.Copy(own, out)
		way(own)
		v.b.Copy(wide, own)
		results[i] = make([]float32, out.Len())
		v.b.Download(kernels.AsBytes(results[i]), wide)
	}
	if err := v.b.Sync(); err != nil {
		v.Fatal(err)
	}
	limit := map[kernels.DType]float64{kernels.F16: 2e-3, kernels.BF16: 1.6e-2}[v.b.act]
	largest, worst, at := 1e-30, 0.0, 0
	for i, w := range results[1] {
		largest = max(largest, math.Abs(float64(w)))
		if d := math.Abs(float64(w - results[0][i])); !(d <= worst) {
			worst, at = d, i
		}
	}
	if !(worst <= limit*largest) {
		v.Errorf("%s: element %d is %v, want %v: off by %.3g of the largest", name, at, results[0][at], results[1][at], worst/largest)
	}
}
