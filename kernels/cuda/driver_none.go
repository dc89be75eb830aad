//go:build !cuda

package cuda

import (
	"errors"

	"quartet/kernels"
)

// Built reports whether the program was built with the CUDA backend.
const Built = false

var errNotBuilt = errors.New("this quartet was built without CUDA; `just build` where nvcc is makes one with it")

// Devices is an error in this build.
func Devices() ([]Info, error) { return nil, errNotBuilt }

// Open is an error in this build.
func Open(int, kernels.DType) (*Backend, error) { return nil, errNotBuilt }
