package kernels

import "fmt"

// Want panics unless an operation's operand has a type and shape.
func Want(op, name string, t Tensor, d DType, rows, cols int) {
	if t.DType != d || t.Rows != rows || t.Cols != cols {
		panic(fmt.Sprintf("kernels: %s: %s is %v, want %v[%d,%d]", op, name, t, d, rows, cols))
	}
}

// WantFloat is Want for an operand that may be F32, F16 or BF16.
func WantFloat(op, name string, t Tensor, rows, cols int) {
	if !t.DType.IsFloat() {
		panic(fmt.Sprintf("kernels: %s: %s is %v, want float32, float16 or bfloat16", op, name, t))
	}
	Want(op, name, t, t.DType, rows, cols)
}

// WantNF4 panics unless an operand is an NF4 matrix with fitting scales.
func WantNF4(op, name string, t Tensor) {
	q := t.Quant
	if t.DType != NF4 || q == nil || q.BlockSize <= 0 || q.BlockSize%2 != 0 {
		panic(fmt.Sprintf("kernels: %s: %s is %v, want nf4 with scales for blocks of an even size", op, name, t))
	}
	blocks := (t.Len() + q.BlockSize - 1) / q.BlockSize
	if q.NestedBlockSize == 0 {
		Want(op, name+"'s absmax", q.Absmax, F32, 1, blocks)
		return
	}
	Want(op, name+"'s absmax", q.Absmax, U8, 1, blocks)
	Want(op, name+"'s nested absmax", q.NestedAbsmax, F32, 1, (blocks+q.NestedBlockSize-1)/q.NestedBlockSize)
}

// WantWeight panics unless an operand is a weight matrix of a shape.
func WantWeight(op string, t Tensor, rows, cols int) {
	if t.DType == NF4 {
		WantNF4(op, "weight", t)
		Want(op, "weight", t, NF4, rows, cols)
		return
	}
	WantFloat(op, "weight", t, rows, cols)
}

// IsFloat reports whether the type is F32, F16 or BF16.
func (d DType) IsFloat() bool { return d == F32 || d == F16 || d == BF16 }
