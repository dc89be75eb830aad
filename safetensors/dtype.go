package safetensors

import (
	"errors"
	"math"
	"slices"
	"strings"
)

// DType is the element type of a tensor, spelled as in the file.
type DType string

// The element types this package reads and writes.
const (
	F64  DType = "F64"
	F32  DType = "F32"
	F16  DType = "F16"
	BF16 DType = "BF16"
	I64  DType = "I64"
	I32  DType = "I32"
	I16  DType = "I16"
	I8   DType = "I8"
	U8   DType = "U8"
	Bool DType = "BOOL"
)

// fileOrder is the order in which the reference writer lays types out. Sizes fall, so every tensor lies aligned to its
// own element size.
var fileOrder = []DType{I64, F64, F32, I32, BF16, F16, I16, I8, U8, Bool}

// Size is the number of bytes of one element, or 0 for a type this package does not know.
func (d DType) Size() int {
	switch d {
	case F64, I64:
		return 8
	case F32, I32:
		return 4
	case F16, BF16, I16:
		return 2
	case I8, U8, Bool:
		return 1
	}
	return 0
}

// rank is the type's place in fileOrder.
func (d DType) rank() int { return slices.Index(fileOrder, d) }

func knownTypes() string {
	names := make([]string, len(fileOrder))
	for i, d := range fileOrder {
		names[i] = string(d)
	}
	return strings.Join(names, ", ")
}

// maxDims bounds a shape; torch itself stops at 64 and models at 5.
const maxDims = 16

var errTooLarge = errors.New("shape overflows 64 bits")

// byteSize is the size in bytes of a tensor of this type and shape.
func byteSize(d DType, shape []int) (int, error) {
	n := d.Size()
	for _, dim := range shape {
		if dim != 0 && n > math.MaxInt/dim {
			return 0, errTooLarge
		}
		n *= dim
	}
	return n, nil
}
