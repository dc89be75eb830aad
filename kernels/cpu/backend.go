// Package cpu runs the operations of kernels.Backend on the processor: plain Go everywhere, and generated assembly where
// the processor has AVX2, FMA and F16C, or AVX-512. Activations are F32; weights stay in memory as they are stored.
package cpu

import (
	"runtime"

	"quartet/kernels"
)

// Backend implements kernels.Backend in host memory. Its results depend neither on the number of threads nor on chance;
// those of the plain and of the vector path differ by rounding, except where the contract says exactly.
type Backend struct {
	pool   *pool
	path   Path
	loops  *loops
	memory memory
	vector [2][]float32 // weight vectors widened to float32, one for each a single operation may need
	rows   []float32    // what an operation lays out anew for all threads
	whole  whole        // activations as linearWhole takes them
	parts  []uint16     // activations as linearParts takes them
}

var _ kernels.Backend = (*Backend)(nil)

// Option changes how New sets up a backend.
type Option func(*Backend)

// Threads has the backend use n threads instead of GOMAXPROCS.
func Threads(n int) Option { return func(b *Backend) { b.pool = newPool(n) } }

// New makes a backend with a pool of threads that lives as long as it is reachable.
func New(options ...Option) *Backend {
	b := &Backend{}
	paths := Paths()
	On(paths[len(paths)-1])(b)
	for _, o := range options {
		o(b)
	}
	if b.pool == nil {
		b.pool = newPool(runtime.GOMAXPROCS(0))
	}
	runtime.AddCleanup(b, (*pool).close, b.pool)
	return b
}

// Name is "cpu".
func (b *Backend) Name() string { return "cpu" }

// Activations is F32.
func (b *Backend) Activations() kernels.DType { return kernels.F32 }

// Sync returns nil: every operation has finished when it returns.
func (b *Backend) Sync() error { return nil }
