// Package conformance holds every backend against one table of operations, shapes and types: forward operations against
// float64 references, backward ones against central differences of those, and the exact ones bit by bit.
package conformance

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"testing"

	"quartet/kernels"
)

// check is one line of the table.
type check struct {
	op, detail string // detail tells the op's lines apart: shapes, types, what is special
	run        func(r *rig)
}

// table is all checks. Its shapes are odd on purpose: one row, none, widths that no vector divides.
func table() []check {
	var all []check
	for _, family := range [][]check{
		elementwise(), rows(), norms(), linears(), products(), attentions(), losses(), dropouts(), optimisers(), nf4s(), fused(),
	} {
		all = append(all, family...)
	}
	return all
}

// Run holds a backend against the table, each line a subtest.
func Run(t *testing.T, b kernels.Backend) {
	for _, c := range table() {
		t.Run(c.op+"/"+c.detail, func(t *testing.T) { newRig(t, b, c).run() })
	}
}

// Same runs the table on two backends and requires equal bytes: what two numbers of threads must give.
func Same(t *testing.T, b, other kernels.Backend) {
	for _, c := range table() {
		t.Run(c.op+"/"+c.detail, func(t *testing.T) {
			first, second := newRig(t, b, c), newRig(t, other, c)
			first.run()
			second.run()
			for i, r := range first.read {
				if r != second.read[i] {
					t.Errorf("result %d differs: %x and %x", i, r, second.read[i])
				}
			}
		})
	}
}

// rig is what a check works with: a backend, seeded numbers, and ways to fail.
type rig struct {
	*testing.T
	b     kernels.Backend
	c     check
	rand  *rand.Rand
	owned []kernels.Tensor
	read  []uint64 // digests of what was read back, in order
}

func newRig(t *testing.T, b kernels.Backend, c check) *rig {
	name := fnv.New64a()
	fmt.Fprint(name, c.op, c.detail)
	return &rig{T: t, b: b, c: c, rand: rand.New(rand.NewPCG(1, name.Sum64()))}
}

func (r *rig) run() {
	r.c.run(r)
	for _, t := range r.owned {
		r.b.Free(t)
	}
}

// normal is n values around 0 with a standard deviation.
func (r *rig) normal(n int, deviation float64) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = deviation * r.rand.NormFloat64()
	}
	return v
}

// round is values as a type stores them.
func round(d kernels.DType, values []float64) []float64 {
	out := make([]float64, len(values))
	for i, v := range values {
		switch f := float32(v); d {
		case kernels.F16:
			out[i] = float64(kernels.F16ToF32(kernels.F32ToF16(f)))
		case kernels.BF16:
			out[i] = float64(kernels.BF16ToF32(kernels.F32ToBF16(f)))
		default:
			out[i] = float64(f)
		}
	}
	return out
}

// encode is values as the bytes of a type.
func encode(d kernels.DType, values []float64) []byte {
	switch d {
	case kernels.F32:
		return kernels.AsBytes(float32s(values))
	case kernels.F16, kernels.BF16:
		h := make([]uint16, len(values))
		for i, v := range values {
			if h[i] = kernels.F32ToF16(float32(v)); d == kernels.BF16 {
				h[i] = kernels.F32ToBF16(float32(v))
			}
		}
		return kernels.AsBytes(h)
	case kernels.I32:
		n := make([]int32, len(values))
		for i, v := range values {
			n[i] = int32(v)
		}
		return kernels.AsBytes(n)
	}
	panic(fmt.Sprintf("conformance: encode %v", d))
}

func float32s(values []float64) []float32 {
	out := make([]float32, len(values))
	for i, v := range values {
		out[i] = float32(v)
	}
	return out
}

// alloc is zeroed memory that is freed after the check.
func (r *rig) alloc(d kernels.DType, rows, cols int) kernels.Tensor {
	r.Helper()
	t, err := r.b.Alloc(d, rows, cols)
	if err != nil {
		r.Fatal(err)
	}
	r.owned = append(r.owned, t)
	return t
}

// put is a tensor of values, and the values as it holds them.
func (r *rig) put(d kernels.DType, rows, cols int, values []float64) (kernels.Tensor, []float64) {
	r.Helper()
	t := r.alloc(d, rows, cols)
	r.b.Upload(t, encode(d, values))
	return t, round(d, values)
}

// random is put of normal values.
func (r *rig) random(d kernels.DType, rows, cols int) (kernels.Tensor, []float64) {
	r.Helper()
	return r.put(d, rows, cols, r.normal(rows*cols, 1))
}

// act is random in the backend's activation type.
func (r *rig) act(rows, cols int) (kernels.Tensor, []float64) {
	r.Helper()
	return r.random(r.b.Activations(), rows, cols)
}

// junk is an activation full of values that an overwriting operation must not let through.
func (r *rig) junk(rows, cols int) kernels.Tensor {
	r.Helper()
	values := make([]float64, rows*cols)
	for i := range values {
		values[i] = math.NaN()
	}
	t, _ := r.put(r.b.Activations(), rows, cols, values)
	return t
}

func (r *rig) ints(rows, cols int, values []int32) kernels.Tensor {
	r.Helper()
	t := r.alloc(kernels.I32, rows, cols)
	r.b.Upload(t, kernels.AsBytes(values))
	return t
}

// bytes reads a tensor back.
func (r *rig) bytes(t kernels.Tensor) []byte {
	r.Helper()
	data := make([]byte, t.DType.Bytes(t.Len()))
	r.b.Download(data, t)
	if err := r.b.Sync(); err != nil {
		r.Fatal(err)
	}
	digest := fnv.New64a()
	digest.Write(data)
	r.read = append(r.read, digest.Sum64())
	return data
}

// values reads a tensor of numbers back.
func (r *rig) values(t kernels.Tensor) []float64 {
	r.Helper()
	data := kernels.HostTensor(t.DType, t.Rows, t.Cols, r.bytes(t))
	out := make([]float64, t.Len())
	for i := range out {
		switch t.DType {
		case kernels.F32:
			out[i] = float64(data.F32s()[i])
		case kernels.F16:
			out[i] = float64(kernels.F16ToF32(data.F16s()[i]))
		case kernels.BF16:
			out[i] = float64(kernels.BF16ToF32(data.F16s()[i]))
		}
	}
	return out
}

// tolerance is how far a result may be from its reference, as a share of the largest of the reference's elements (or
// of 1e-30): by the type of the result, since storing it there rounds it.
type tolerance struct{ f32, f16 float64 }

func (tol tolerance) of(d kernels.DType) float64 {
	switch d {
	case kernels.F16:
		return tol.f16
	case kernels.BF16:
		return 8 * tol.f16
	}
	return tol.f32
}

// near requires a tensor to be within a tolerance of its reference.
func (r *rig) near(name string, t kernels.Tensor, want []float64, tol tolerance) {
	r.Helper()
	got := r.values(t)
	if len(got) != len(want) {
		r.Fatalf("%s: %d elements, want %d", name, len(got), len(want))
	}
	largest, worst, at := 1e-30, 0.0, 0
	for i, w := range want {
		largest = max(largest, math.Abs(w))
		if e := math.Abs(got[i] - w); e > worst || math.IsNaN(e) {
			if worst, at = e, i; math.IsNaN(e) {
				break
			}
		}
	}
	if limit := tol.of(t.DType) * largest; !(worst <= limit) {
		r.Errorf("%s: element %d is %v, want %v: off by %.3g of the largest, the limit is %.3g", name, at, got[at], want[at], worst/largest, limit/largest)
	}
}

// exact requires a tensor's bytes to be what is wanted.
func (r *rig) exact(name string, t kernels.Tensor, want []byte) {
	r.Helper()
	got := r.bytes(t)
	size := max(1, t.DType.Bytes(1))
	wrong, first := 0, -1
	for i := range want {
		if got[i] != want[i] {
			if wrong++; first < 0 {
				first = i
			}
		}
	}
	if wrong > 0 {
		r.Errorf("%s: %d of %d bytes differ, first in element %d", name, wrong, len(want), first/size)
	}
}

// panics requires a call with wrong operands to panic with a message of its own.
func (r *rig) panics(name string, call func()) {
	r.Helper()
	defer func() {
		if _, ok := recover().(string); !ok {
			r.Errorf("%s: no panic that says what is wrong", name)
		}
	}()
	call()
}

// slope is the gradient of Σ dout·f(x) by x, by central differences; f is the float64 reference.
func slope(x, dout []float64, f func(x []float64) []float64) []float64 {
	const h = 1e-4
	at := append([]float64(nil), x...)
	grad := make([]float64, len(x))
	for i := range at {
		at[i] = x[i] + h
		up := f(at)
		at[i] = x[i] - h
		down := f(at)
		at[i] = x[i]
		var sum float64
		for j, d := range dout {
			sum += d * (up[j] - down[j])
		}
		grad[i] = sum / (2 * h)
	}
	return grad
}

// byRow applies a reference to each row by itself: for slopes of operations whose rows don't touch each other.
func byRow(rows int, x, dout []float64, f func(row int, x []float64) []float64) []float64 {
	var all []float64
	for t := range rows {
		n, m := len(x)/rows, len(dout)/rows
		all = append(all, slope(x[t*n:(t+1)*n], dout[t*m:(t+1)*m], func(x []float64) []float64 { return f(t, x) })...)
	}
	return all
}

func sum(x, y []float64) []float64 {
	out := make([]float64, len(x))
	for i := range x {
		out[i] = x[i] + y[i]
	}
	return out
}
