package cpu

import (
	"fmt"

	"quartet/kernels"
)

// want panics unless t is of the type and shape that an operation expects of it.
func want(op, name string, t kernels.Tensor, d kernels.DType, rows, cols int) {
	if t.DType != d || t.Rows != rows || t.Cols != cols {
		panic(fmt.Sprintf("cpu: %s: %s is %v, want %v[%d,%d]", op, name, t, d, rows, cols))
	}
}

// wantFloat is want for a tensor that may be F32, F16 or BF16.
func wantFloat(op, name string, t kernels.Tensor, rows, cols int) {
	if !isFloat(t) {
		panic(fmt.Sprintf("cpu: %s: %s is %v, want float32, float16 or bfloat16", op, name, t))
	}
	want(op, name, t, t.DType, rows, cols)
}

func isFloat(t kernels.Tensor) bool {
	return t.DType == kernels.F32 || t.DType == kernels.F16 || t.DType == kernels.BF16
}

// wantNF4 panics unless t is an NF4 matrix with fitting scales.
func wantNF4(op, name string, t kernels.Tensor) {
	q := t.Quant
	if t.DType != kernels.NF4 || q == nil || q.BlockSize <= 0 || q.BlockSize%2 != 0 {
		panic(fmt.Sprintf("cpu: %s: %s is %v, want nf4 with scales for blocks of an even size", op, name, t))
	}
	blocks := (t.Len() + q.BlockSize - 1) / q.BlockSize
	if q.NestedBlockSize == 0 {
		want(op, name+"'s absmax", q.Absmax, kernels.F32, 1, blocks)
		return
	}
	want(op, name+"'s absmax", q.Absmax, kernels.U8, 1, blocks)
	want(op, name+"'s nested absmax", q.NestedAbsmax, kernels.F32, 1, (blocks+q.NestedBlockSize-1)/q.NestedBlockSize)
}

// wantWeight panics unless t is a weight matrix of a shape.
func wantWeight(op string, t kernels.Tensor, rows, cols int) {
	if t.DType == kernels.NF4 {
		wantNF4(op, "weight", t)
		want(op, "weight", t, kernels.NF4, rows, cols)
		return
	}
	wantFloat(op, "weight", t, rows, cols)
}
