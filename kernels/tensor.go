// Package kernels is the seam between the model and the machine: the types and operations that every backend
// (kernels/cpu, kernels/cuda) implements and that kernels/conformance holds against float64.
package kernels

import (
	"fmt"
	"unsafe"
)

// DType is the type of a tensor's elements.
type DType uint8

// The element types. NF4 packs two weights a byte and carries its scales in Tensor.Quant.
const (
	F32 DType = iota
	F16
	BF16
	I32
	U8
	NF4
)

var dtypeNames = [...]string{"float32", "float16", "bfloat16", "int32", "uint8", "nf4"}

// String is the type's name as torch spells it.
func (d DType) String() string { return dtypeNames[d] }

// Bytes is the size of n elements; for NF4 that of the packed codes alone.
func (d DType) Bytes(n int) int {
	switch d {
	case F32, I32:
		return 4 * n
	case F16, BF16:
		return 2 * n
	case NF4:
		return (n + 1) / 2
	}
	return n
}

// Tensor is a row-major matrix in one backend's memory; a vector has one row. The zero Tensor means "none".
// It is a view: copying a Tensor copies no elements.
type Tensor struct {
	DType      DType
	Rows, Cols int
	Host       []byte // its elements in host memory, nil for a tensor on a device
	Addr       uint64 // its address on the device, 0 for a tensor of the CPU
	Quant      *Quant // the scales of an NF4 tensor, nil otherwise
}

// Quant holds the scales of an NF4 matrix: one absmax for each block of consecutive weights of the flattened matrix.
// (QLoRA, Dettmers et al. 2023, section 3; the layout is bitsandbytes'.)
type Quant struct {
	BlockSize int   // weights a block; the last one may be short
	Round     DType // what dequantised weights are rounded to: F16, BF16, or F32 for not at all
	Absmax    Tensor
	// Absmax is F32 (1, blocks), or with double quantisation U8 (1, blocks), where
	// absmax[i] = SignedMap[Absmax[i]]·NestedAbsmax[i/NestedBlockSize] + NestedOffset, product and sum rounded apart.
	NestedBlockSize int     // 0 without double quantisation
	NestedAbsmax    Tensor  // F32 (1, ceil(blocks/NestedBlockSize))
	NestedOffset    float32 // the mean of the block absmaxima
}

// IsZero reports whether t stands for "none".
func (t Tensor) IsZero() bool { return t.Rows == 0 && t.Cols == 0 }

// Len is the number of elements.
func (t Tensor) Len() int { return t.Rows * t.Cols }

// Bytes is the memory of the elements and, for NF4, of the scales.
func (t Tensor) Bytes() int {
	n := t.DType.Bytes(t.Len())
	if q := t.Quant; q != nil {
		n += q.Absmax.Bytes() + q.NestedAbsmax.Bytes()
	}
	return n
}

// Slice is the view of rows [from, to). NF4 tensors can't be sliced: their blocks run over row ends.
func (t Tensor) Slice(from, to int) Tensor {
	if from < 0 || to < from || to > t.Rows || t.DType == NF4 {
		panic(fmt.Sprintf("kernels: rows %d:%d of %v", from, to, t))
	}
	stride := t.DType.Bytes(t.Cols)
	v := t
	v.Rows = to - from
	if t.Host != nil {
		v.Host = t.Host[from*stride : to*stride]
	} else {
		v.Addr += uint64(from * stride)
	}
	return v
}

// Reshape is the same elements seen as rows × cols.
func (t Tensor) Reshape(rows, cols int) Tensor {
	if rows*cols != t.Len() {
		panic(fmt.Sprintf("kernels: %v seen as %d×%d", t, rows, cols))
	}
	t.Rows, t.Cols = rows, cols
	return t
}

// String describes the tensor's type and shape, for messages.
func (t Tensor) String() string { return fmt.Sprintf("%v[%d,%d]", t.DType, t.Rows, t.Cols) }

// F32s is the elements of an F32 host tensor, without a copy.
func (t Tensor) F32s() []float32 { return hostView[float32](t, F32) }

// F16s is the bit patterns of an F16 or BF16 host tensor, without a copy.
func (t Tensor) F16s() []uint16 {
	if t.DType == BF16 {
		return hostView[uint16](t, BF16)
	}
	return hostView[uint16](t, F16)
}

// I32s is the elements of an I32 host tensor, without a copy.
func (t Tensor) I32s() []int32 { return hostView[int32](t, I32) }

func hostView[T any](t Tensor, want DType) []T {
	if t.DType != want {
		panic(fmt.Sprintf("kernels: %v read as %v", t, want))
	}
	if t.Len() == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(t.Host))), t.Len())
}

// HostTensor wraps host memory as a tensor, without a copy. Data must hold exactly the elements and, on processors
// that need it, be aligned to their size.
func HostTensor(d DType, rows, cols int, data []byte) Tensor {
	if len(data) != d.Bytes(rows*cols) {
		panic(fmt.Sprintf("kernels: %d bytes for %v[%d,%d]", len(data), d, rows, cols))
	}
	return Tensor{DType: d, Rows: rows, Cols: cols, Host: data}
}

// AsBytes is the memory of a slice of numbers, without a copy.
func AsBytes[T float32 | int32 | uint16 | uint8](s []T) []byte {
	if len(s) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(s[0])))
}
