//go:build cuda

package cuda

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"quartet/kernels"
)

// emptyNF4 is an NF4 matrix that nothing was put in yet.
func emptyNF4(tb testing.TB, b *Backend, rows, cols, block int, round kernels.DType, twice bool) kernels.Tensor {
	tb.Helper()
	alloc := func(d kernels.DType, rows, cols int) kernels.Tensor {
		t, err := b.Alloc(d, rows, cols)
		if err != nil {
			tb.Fatal(err)
		}
		return t
	}
	x, q := alloc(kernels.NF4, rows, cols), kernels.NewQuant(rows*cols, block, round, twice)
	q.Absmax = alloc(q.Absmax.DType, 1, q.Absmax.Cols)
	q.NestedAbsmax = alloc(q.NestedAbsmax.DType, q.NestedAbsmax.Rows, q.NestedAbsmax.Cols)
	x.Quant = q
	tb.Cleanup(func() { b.Free(x) })
	return x
}

// TestErrorNF4 holds it against the operations that it stands for.
func TestErrorNF4(t *testing.T) {
	b := openTest(t, kernels.F16)
	for _, d := range []kernels.DType{kernels.F32, kernels.F16, kernels.BF16} {
		for _, c := range []struct {
			rows, cols, block int
			twice             bool
		}{{131, 77, 64, true}, {3, 5, 64, false}, {40, 2560, 128, true}, {7, 333, 96, false}} {
			t.Run(fmt.Sprintf("%v/%v", d, c), func(t *testing.T) {
				v := &thinCheck{t, b, rand.New(rand.NewPCG(1, uint64(c.rows)))}
				w := v.noise(d, c.rows, c.cols)
				x := emptyNF4(t, b, c.rows, c.cols, c.block, d, c.twice)
				b.QuantizeNF4(x, w)
				moved, whole := b.ErrorNF4(x, w)
				apart, own := v.noise(kernels.F32, c.rows, c.cols), v.noise(kernels.F32, c.rows, c.cols)
				b.Copy(own, w)
				b.DequantizeNF4(apart, x)
				a, o := make([]float32, w.Len()), make([]float32, w.Len())
				b.Download(kernels.AsBytes(a), apart)
				b.Download(kernels.AsBytes(o), own)
				var want [2]float64
				for i, v := range o {
					e := float64(v - a[i])
					want[0], want[1] = want[0]+e*e, want[1]+float64(v)*float64(v)
				}
				if math.Abs(moved-want[0]) > 1e-6*want[0] || math.Abs(whole-want[1]) > 1e-6*want[1] || moved == 0 {
					t.Errorf("%v and %v, want %v", moved, whole, want)
				}
				if err := b.Sync(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// BenchmarkNF4 is how fast phi-2's largest matrices are dequantised, what is read and written counting, and quantised.
func BenchmarkNF4(bench *testing.B) {
	b := openTest(bench, kernels.F16)
	const rows, cols, sets = 10240, 2560, 4
	var packed, plain [sets]kernels.Tensor
	for i := range sets {
		plain[i] = noise(bench, b, kernels.F16, rows, cols)
		packed[i] = emptyNF4(bench, b, rows, cols, 64, kernels.F16, true)
		b.QuantizeNF4(packed[i], plain[i])
	}
	bytes := packed[0].Bytes() + plain[0].Bytes()
	bench.Run("error", func(tb *testing.B) {
		tb.SetBytes(int64(bytes))
		i := 0
		for tb.Loop() {
			b.ErrorNF4(packed[i%sets], plain[i%sets])
			i++
		}
	})
	bench.Run("dequantize", func(tb *testing.B) {
		replays(tb, b, bytes, func(i int) { b.DequantizeNF4(plain[i%sets], packed[i%sets]) })
	})
	bench.Run("quantize", func(tb *testing.B) {
		tb.SetBytes(int64(bytes))
		i := 0
		for tb.Loop() {
			b.QuantizeNF4(packed[i%sets], plain[i%sets])
			i++
		}
		if err := b.Sync(); err != nil {
			tb.Fatal(err)
		}
	})
}
