//go:build cuda

package cuda

// #include <stdlib.h>
// #include "blas.h"
import "C"

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"unsafe"

	"quartet/kernels"
)

// openBLAS finds cuBLASLt: by the loader, in the toolkit's folders, and among the packages that pip has installed. It is nil where there is none.
func openBLAS(q C.quartet_queue) unsafe.Pointer {
	var blas unsafe.Pointer
	for _, path := range blasPaths() {
		name := C.CString(path)
		failed := C.quartet_blas_open(name, q, &blas)
		C.free(unsafe.Pointer(name))
		if failed == 0 {
			return blas
		}
	}
	return nil
}

func blasPaths() []string {
	paths := []string{"libcublasLt.so.13", "libcublasLt.so.12"}
	home, _ := os.UserHomeDir()
	for _, pattern := range []string{
		os.Getenv("CUDA_HOME") + "/lib64", os.Getenv("CUDA_HOME") + "/targets/*/lib", "/usr/local/cuda*/lib64", "/usr/local/cuda*/targets/*/lib", "/opt/cuda/lib64",
		os.Getenv("VIRTUAL_ENV") + "/lib/python*/site-packages/nvidia/*/lib", os.Getenv("CONDA_PREFIX") + "/lib/python*/site-packages/nvidia/*/lib",
		home + "/.local/lib/python*/site-packages/nvidia/*/lib", "/usr/local/lib/python*/*-packages/nvidia/*/lib", "/usr/lib/python3/dist-packages/nvidia/*/lib",
	} {
		found, _ := filepath.Glob(pattern + "/libcublasLt.so.1[23]")
		slices.Sort(found)
		slices.Reverse(found)
		paths = append(paths, found...)
	}
	return paths
}

func closeBLAS(q C.quartet_queue, blas unsafe.Pointer) { C.quartet_blas_close(q, blas) }

var blasTypes = map[kernels.DType]C.int{kernels.F32: 0, kernels.F16: 1, kernels.BF16: 2}

func (d *driver) product(p product) (done bool, err error) {
	if d.blas == nil {
		return false, nil
	}
	c := C.quartet_product{
		_type: blasTypes[p.dtype], m: C.int(p.m), n: C.int(p.n), k: C.int(p.k), trans_x: C.int(flag(p.transX)), trans_y: C.int(flag(p.transY)),
		ld_out: C.int(p.ldOut), ld_x: C.int(p.ldX), ld_y: C.int(p.ldY),
		out: C.uint64_t(p.out), x: C.uint64_t(p.x), y: C.uint64_t(p.y), bias: C.uint64_t(p.bias), alpha: C.float(p.alpha), beta: C.float(p.beta),
	}
	switch code := C.quartet_multiply(d.q, d.blas, &c); code {
	case 0:
		return true, nil
	case -7, -15: // CUBLAS_STATUS_INVALID_VALUE, …_NOT_SUPPORTED: not for this shape
		return false, nil
	default:
		return false, fmt.Errorf("multiply %d×%d×%d by cuBLASLt: status %d", p.m, p.n, p.k, -code)
	}
}
