// Package cuda is the backend for NVIDIA GPUs. What it launches, with which geometry and arguments, is ordinary Go that is
// built and tested everywhere; the driver below it (gorgonia.org/cu, build tag cuda) and the kernels (.cu, one family of
// operations a file) need CUDA to build, and a program built with them also starts where there is no GPU.
package cuda

import (
	"math"

	"quartet/kernels"
)

// device is a GPU as the backend uses it. All work is queued on one stream, in order; its errors come at the latest with sync.
// The driver implements it, and in tests a recorder.
type device interface {
	info() Info
	alloc(bytes int) (uint64, error)
	free(addr uint64)
	zero(addr uint64, bytes int) error
	upload(addr uint64, data []byte) error
	download(data []byte, addr uint64) error // waits for all that was queued
	launch(l launch) error
	// product queues a matrix product through cuBLASLt; done is false where there is no such library or it can't do this one.
	product(p product) (done bool, err error)
	sync() error
	close() error
}

// Info describes a GPU.
type Info struct {
	Index         int    `json:"index"` // counted from 0, as CUDA_VISIBLE_DEVICES leaves them
	Name          string `json:"name"`
	Major         int    `json:"major"`
	Minor         int    `json:"minor"`               // compute capability
	Processors    int    `json:"processors"`          // streaming multiprocessors
	SharedMemory  int    `json:"shared_memory_bytes"` // bytes that a block can have at most
	L2            int    `json:"l2_bytes"`            // bytes
	MemoryTotal   int64  `json:"memory_bytes"`
	MemoryFree    int64  `json:"free_bytes"`  // when it was asked
	DriverVersion int    `json:"driver_cuda"` // 1000·major + 10·minor of the CUDA that the driver supports
}

// TF32 reports whether the GPU has the tf32 type.
func (i Info) TF32() bool { return i.Major >= 8 }

// BF16 reports whether the GPU computes in bfloat16.
func (i Info) BF16() bool { return i.Major >= 8 }

// launch is one kernel's launch.
type launch struct {
	kernel string
	grid   [3]int
	block  int // threads
	shared int // bytes of dynamic shared memory
	args   []uint64
	// together requires all blocks to run at a time, as those do that wait for each other.
	together bool
}

// product is out (M,N) = alpha·op(x)·op(y) + beta·out + bias, row-major: op(x) is (M,K), op(y) (K,N), bias (N) or 0.
// All four are of one type, F32, F16 or BF16; sums are fp32. Rows of out, x and y lie ld elements apart.
type product struct {
	dtype           kernels.DType
	out, x, y, bias uint64
	m, n, k         int
	transX, transY  bool
	ldOut, ldX, ldY int
	alpha, beta     float32
}

// Kernel arguments take eight bytes each, the value in the low ones.

func number(n int) uint64     { return uint64(int64(n)) }
func word(n uint32) uint64    { return uint64(n) }
func real32(f float32) uint64 { return uint64(math.Float32bits(f)) }
func flag(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// suffix is how a kernel's name ends for a type.
func suffix(d kernels.DType) string {
	switch d {
	case kernels.F16:
		return "_f16"
	case kernels.BF16:
		return "_bf16"
	}
	return "_f32"
}
